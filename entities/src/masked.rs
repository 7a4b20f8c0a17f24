//! Addresses as they may be shown: without the account and without parameters that are secrets. Where it cannot be told
//! where a secret ends, more is left out. Not here: secrets themselves (`secret`).

/// Parts of the names of parameters whose values are secrets. A name that is written with `%` is taken for one of them.
const SECRET_NAMES: [&str; 8] = ["pass", "pwd", "token", "secret", "key", "auth", "cred", "%"];
/// What ends an address in the middle of other text.
const ENDS: [char; 8] = [' ', '\t', '\n', ',', '"', '\'', '`', '\\'];

/// An address with its whole account masked: `http://***@host/?token=***`. What is none is shown as it is, but for what
/// stands before an `@`.
pub fn url(url: &str) -> String {
    masked(url, false)
}

/// The same, with the account's name: `postgres://ann:***@host/name?password=***`.
pub fn url_of_account(url: &str) -> String {
    masked(url, true)
}

/// A text with all addresses in it masked.
pub fn text(text: &str) -> String {
    let Some(found) = text.find("://") else { return text.to_owned() };
    let is_scheme = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '+' | '-' | '.');
    let start = text[..found]
        .rfind(|sign| !is_scheme(sign))
        .map_or(0, |before| before + text[before..].chars().next().map_or(1, char::len_utf8));
    let end = text[found..].find(ENDS).map_or(text.len(), |end| found + end);
    format!("{}{}{}", &text[..start], url(&text[start..end]), self::text(&text[end..]))
}

fn masked(url: &str, names_account: bool) -> String {
    let (scheme, joint, rest) =
        url.split_once("://").map_or(("", "", url), |(scheme, rest)| (scheme, "://", rest));
    let (address, parameters) = rest.split_once('?').map_or((rest, None), |(a, p)| (a, Some(p)));
    if !address.contains('@') && parameters.is_some_and(|parameters| parameters.contains('@')) {
        // Either a parameter has an `@`, or a password has a `?`.
        return format!("{scheme}{joint}***");
    }
    // The last `@`: a password may have an unescaped one.
    let address = match address.rsplit_once('@') {
        None => address.to_owned(),
        Some((account, host)) => match account.split_once(':') {
            None if names_account => format!("{account}@{host}"),
            Some((name, _)) if names_account => format!("{name}:***@{host}"),
            _ => format!("***@{host}"),
        },
    };
    let parameters = parameters.map(|parameters| {
        let shown = parameters.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}=***"),
            _ => pair.to_owned(),
        });
        format!("?{}", shown.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}{joint}{address}{}", parameters.unwrap_or_default())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_and_secret_parameters_are_masked() {
        for (given, shown) in [
            ("http://host:4318/path", "http://host:4318/path"),
            ("http://ann:s3cret@host:4318", "http://***@host:4318"),
            ("http://s3cret@host", "http://***@host"),
            ("redis://:s3/c?r@e#t@host", "redis://***"),
            ("redis://:s3/c@r#et@host/1", "redis://***@host/1"),
            ("redis://host/?password=s3cret&db=1", "redis://host/?password=***&db=1"),
            ("redis://host/?pass=s3cr@et", "redis://***"),
            ("https://host/?API_KEY=s3cret", "https://host/?API_KEY=***"),
            ("https://host/?x-auth=s3cret&page=2", "https://host/?x-auth=***&page=2"),
            ("https://host/?p%61ssword=s3cret", "https://host/?p%61ssword=***"),
            ("https://host/?accessToken=s3cret", "https://host/?accessToken=***"),
            ("https://host/?client_secret=s3cret#a", "https://host/?client_secret=***"),
            ("ann:s3cret@host:4318", "***@host:4318"),
            ("sqlite:path?key=s3cret&mode=ro", "sqlite:path?key=***&mode=ro"),
            ("", ""),
        ] {
            assert_eq!(url(given), shown);
        }
        assert_eq!(url_of_account("postgres://ann:s3cret@db/xp"), "postgres://ann:***@db/xp");
        assert_eq!(
            url_of_account("postgres://ann@db/xp?sslpassword=s3cret"),
            "postgres://ann@db/xp?sslpassword=***"
        );
    }

    #[test]
    fn addresses_in_a_text_are_masked() {
        for (given, shown) in [
            ("`http://ann:s3cret@host/x` is not an origin", "`http://***@host/x` is not an origin"),
            (
                "https://a, https://b:s3cret@c,http://d?key=s3cret",
                "https://a, https://***@c,http://d?key=***",
            ),
            ("é://b:s3cret@c", "é://***@c"),
            ("none", "none"),
            ("://", "://"),
        ] {
            assert_eq!(text(given), shown);
        }
    }
}
