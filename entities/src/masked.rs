//! Addresses as they may be shown: without the account and without parameters that are secrets. Where it cannot be told
//! where a secret ends, more is left out. Not here: secrets themselves (`secret`).

/// Parts of the names of parameters whose values are secrets. A name that is written with `%` is taken for one of them.
const SECRET_NAMES: [&str; 8] = ["pass", "pwd", "token", "secret", "key", "auth", "cred", "%"];
/// What ends an address in the middle of other text, unless an account or a parameter goes on behind it: all
/// of these may stand in a password.
const ENDS: [char; 5] = [',', '"', '\'', '`', '\\'];

/// An address with its whole account masked: `http://***@host/?token=***`. What is none is shown as it is, but for what
/// stands before an `@`.
pub fn url(url: &str) -> String {
    masked(url, false)
}

/// An address with the account's name and without its password: `postgres://ann:***@host/name?password=***`.
pub fn url_of_account(url: &str) -> String {
    masked(url, true)
}

/// A text with all addresses in it masked.
pub fn text(text: &str) -> String {
    let Some(found) = text.find("://") else { return text.to_owned() };
    let start = start_of_scheme(text, found);
    let end = found + "://".len() + end_of_address(&text[found + "://".len()..]);
    format!("{}{}{}", &text[..start], url(&text[start..end]), self::text(&text[end..]))
}

/// Where the scheme begins that ends at `end`.
fn start_of_scheme(text: &str, end: usize) -> usize {
    let is_scheme = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '+' | '-' | '.');
    let before = text[..end].rfind(|sign| !is_scheme(sign));
    before.map_or(0, |before| before + text[before..].chars().next().map_or(1, char::len_utf8))
}

/// Where an address ends, of which this text has what follows the `://`: at white space and where another
/// address begins behind a comma or a quote in any case. A comma or a quote before that ends it only where no
/// `@` follows, and a comma not within parameters.
fn end_of_address(text: &str) -> usize {
    let most = text.find(char::is_whitespace).unwrap_or(text.len());
    let next = text[..most].match_indices("://").map(|(at, _)| start_of_scheme(text, at));
    let most = next.filter(|next| text[..*next].ends_with(ENDS)).min().unwrap_or(most);
    let text = &text[..most];
    let account = text.rfind('@').map_or(0, |at| at + 1);
    let parameters = text[account..].find('?').map_or(most, |at| account + at);
    let ends = text[account..].char_indices().map(|(at, sign)| (account + at, sign));
    let mut ends = ends.filter(|(at, sign)| ENDS.contains(sign) && (*sign != ',' || *at < parameters));
    ends.next().map_or_else(|| text.trim_end_matches(ENDS).len(), |(at, _)| at)
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
            ("no `http://ann:s3,cret@host/x`, no", "no `http://***@host/x`, no"),
            ("http://ann:s3'c\"r`et,@host, http://b", "http://***@host, http://b"),
            ("at http://host/?key=s3,cret&page=2 then", "at http://host/?key=***&page=2 then"),
            ("`http://host/?key=s3,cret`, x", "`http://host/?key=***`, x"),
            ("redis+sentinel://:s3cret@a,b/main", "redis+sentinel://***@a,b/main"),
            ("http://a,b:s3cret@c,d", "http://***@c,d"),
            ("http://ann:s3://cret@host, x", "http://***@host, x"),
            ("none", "none"),
            ("://", "://"),
        ] {
            assert_eq!(text(given), shown);
        }
    }
}
