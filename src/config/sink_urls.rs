//! The message queues that events are published to, as a setting: a list of URLs. Not here: what one URL says
//! (`sinks`).

use super::setting::{Setting, split_list};
use crate::sinks::SinkUrl;

/// Where events are published.
#[derive(Clone, Debug, Default)]
pub struct SinkUrls(Vec<SinkUrl>);

impl SinkUrls {
    /// The URLs, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &SinkUrl> {
        self.0.iter()
    }

    /// The URLs of a list: a comma may stand in one, between the hosts of sentinels.
    fn split(text: &str) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for part in split_list(text) {
            match urls.last_mut() {
                Some(last) if !part.contains("://") => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => urls.push(part.to_owned()),
            }
        }
        urls
    }
}

impl Setting for SinkUrls {
    const EXPECTS: &'static str = "URLs, separated by commas";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let urls: Vec<SinkUrl> = Self::split(text).iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        for (index, url) in urls.iter().enumerate() {
            if urls[..index].iter().any(|other| other.name() == url.name()) {
                return Err(format!("{} is there twice", url.name()));
            }
        }
        Ok(Self(urls))
    }

    fn show(text: &str) -> String {
        Self::split(text).iter().map(|url| SinkUrl::show(url)).collect::<Vec<_>>().join(", ")
    }
}
