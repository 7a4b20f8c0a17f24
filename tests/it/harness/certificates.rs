//! Certificates for one test: an authority, what it has signed, and another authority. Made by `openssl`.
//! Ends with the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    /// For a server at 127.0.0.1, and for a client.
    pub(crate) fn new() -> Self {
        let made = Self(tempfile::tempdir().expect("a folder"));
        for authority in ["ca", "other"] {
            made.openssl(&format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ));
        }
        fs::write(made.path("server.cnf"), "subjectAltName=IP:127.0.0.1\n")
            .expect("the folder can be written");
        fs::write(made.path("client.cnf"), "extendedKeyUsage=clientAuth\n")
            .expect("the folder can be written");
        for name in ["server", "client"] {
            made.openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.cnf \
                 -out {name}.pem"
            ));
        }
        made
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &str) {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(self.folder()).output();
        let made = made.expect("openssl is in the PATH");
        assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
    }
}
