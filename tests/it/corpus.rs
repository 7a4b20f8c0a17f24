//! x
use crate::harness::TestApp;
#[tokio::test]
async fn smoke() {
    for app in TestApp::both().await {
        println!("{}", app.as_admin().ask("{users(first:2){nodes{id}}}").await);
    }
}
