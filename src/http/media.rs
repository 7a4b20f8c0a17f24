//! Media types: in which one an answer comes, and which bodies are read. Not here: what the answer says.

use axum::http::{HeaderMap, header};

const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";
const JSON: &str = "application/json";

/// The media types that answers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/graphql-response+json`: the status tells whether the request ran.
    Graphql,
    /// `application/json`: 200 for every well-formed request.
    Json,
}

impl Media {
    /// What the caller prefers of the two; `None` when it takes neither. Without a preference: JSON.
    pub(super) fn accepted_by(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        let mut asked = false;
        for value in headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                    "" => continue,
                    GRAPHQL_RESPONSE => Some(Self::Graphql),
                    JSON | "application/*" | "*/*" => Some(Self::Json),
                    _ => None,
                };
                asked = true;
                let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse);
                let quality: f32 = quality.unwrap_or(0.0);
                if let Some(media) = media
                    && quality > best.map_or(0.0, |(best, _)| best)
                {
                    best = Some((quality, media));
                }
            }
        }
        if asked { best.map(|(_, media)| media) } else { Some(Self::Json) }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Graphql => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        }
    }
}

/// `application/json`, with no charset but UTF-8.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return false };
    if value == JSON {
        return true;
    }
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case(JSON)
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn preferred(accept: &str) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("a header"));
        Media::accepted_by(&headers)
    }

    #[test]
    fn the_accept_header_chooses_the_media_type() {
        assert_eq!(Media::accepted_by(&HeaderMap::new()), Some(Media::Json));
        for (accept, media) in [
            ("application/graphql-response+json", Some(Media::Graphql)),
            (
                "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8",
                Some(Media::Graphql),
            ),
            ("application/json", Some(Media::Json)),
            ("application/json, application/graphql-response+json;q=0.9", Some(Media::Json)),
            ("*/*", Some(Media::Json)),
            ("text/html, */*;q=0.1", Some(Media::Json)),
            ("application/graphql-response+json;q=0", None),
            ("text/html", None),
            ("", Some(Media::Json)),
        ] {
            assert_eq!(preferred(accept), media, "{accept}");
        }
    }

    #[test]
    fn only_json_in_utf_8_is_json() {
        for (content_type, json) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=\"utf-8\"", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/jsonp", false),
            ("text/plain; application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_json(&headers), json, "{content_type}");
        }
    }
}
