//! What texts look like, said once for the server and for every client: each pattern stands in the JSON Schema of a
//! version and is matched here by the same text. So only what `regex` and ECMAScript (with the `u` flag) read alike is
//! taken. Not here: lengths.

use std::sync::LazyLock;

use regex::Regex;

/// A pattern that a form's author wrote.
#[derive(Debug)]
pub struct Pattern {
    /// As it stands in the JSON Schema.
    pub text: String,
    regex: Regex,
    weight: u64,
}

/// The weight of one pattern at most. Matching never goes back, but each character of a text may be compared with each
/// of the pattern, those that a count repeats included.
const MAX_WEIGHT: u64 = 2_000;
/// Bytes that matching one pattern may take to remember what it has found out about it.
pub(super) const MATCHING_BYTES: usize = 64 * 1024;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what cannot be used.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > 500 {
            return Err("A pattern has at most 500 characters.".to_owned());
        }
        let text = portable(text)?;
        let weight = weight(&text);
        if weight > MAX_WEIGHT {
            return Err("This pattern repeats too much: its counts multiply to more than 2,000 characters."
                .to_owned());
        }
        let regex =
            regex::RegexBuilder::new(&text).size_limit(1 << 20).dfa_size_limit(MATCHING_BYTES).build();
        let regex = regex.map_err(|_| "Invalid or too large regular expression.".to_owned())?;
        Ok(Self { text, regex, weight })
    }

    /// How large it is when all its counts are written out.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Does a text have a part that looks like this?
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// The pattern in terms that mean the same everywhere. `\d`, `\w` and `.` mean different characters to different
/// engines, so they are written out; what cannot be is refused.
fn portable(text: &str) -> Result<String, String> {
    let (mut out, mut in_class) = (String::with_capacity(text.len()), false);
    // May `*`, `+`, `?` or `{` follow? ECMAScript repeats no repetition and no anchor.
    let mut is_repeatable = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if !in_class {
            let counts = matches!(letter, '*' | '+' | '?' | '{');
            if counts && !is_repeatable {
                return Err(format!("`{letter}` must follow what it repeats."));
            }
            // The `?` of `*?` is taken below; the digits and the `}` of a count end unrepeatable as well.
            is_repeatable = !counts && !matches!(letter, '^' | '$' | '|' | '(' | '}');
        }
        match letter {
            '\\' => match letters.next() {
                Some('d') => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                Some('w') => out.push_str(if in_class { "A-Za-z0-9_" } else { "[A-Za-z0-9_]" }),
                Some('s') => out.push_str(if in_class { " \t\r\n" } else { "[ \t\r\n]" }),
                // Inside a class ECMAScript takes fewer escapes than outside, but these are common to all.
                Some(sign) if "\\^$.*+?()[]{}|/".contains(sign) || (in_class && sign == '-') => {
                    out.push('\\');
                    out.push(sign);
                }
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("`\\{other}` cannot be used: it does not mean the same everywhere."));
                }
            },
            '[' if in_class => return Err("`[` inside a class is written `\\[`.".to_owned()),
            '[' => {
                in_class = true;
                out.push('[');
                if letters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if letters.peek() == Some(&']') {
                    return Err("A class has at least one character.".to_owned());
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' | '-' if in_class && letters.peek() == Some(&letter) => {
                return Err(format!("`{letter}{letter}` inside a class does not mean the same everywhere."));
            }
            '.' if !in_class => out.push_str("[^\n\r\u{2028}\u{2029}]"),
            '(' if !in_class && letters.peek() == Some(&'?') => {
                letters.next();
                if letters.next() != Some(':') {
                    return Err("Of `(?…` only `(?:…)` can be used.".to_owned());
                }
                out.push_str("(?:");
            }
            // `{` and `}` are literal to one engine and wrong to another unless they count.
            '*' | '+' | '?' if !in_class => {
                out.push(letter);
                if letters.next_if_eq(&'?').is_some() {
                    out.push('?');
                }
            }
            ']' | '}' if !in_class && !closes_count(letter, &out) => {
                return Err(format!("`{letter}` is written `\\{letter}`."));
            }
            letter => out.push(letter),
        }
    }
    Ok(out)
}

/// How many characters a portable pattern has when all its counts are written out; a class counts by its length.
fn weight(text: &str) -> u64 {
    let (mut sums, mut last) = (vec![0_u64], 0);
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let mut taken = letter.len_utf8();
        match letter {
            '(' => {
                taken = if rest.starts_with("(?:") { 3 } else { 1 };
                sums.push(0);
            }
            ')' if sums.len() > 1 => last = sums.pop().unwrap_or_default(),
            '{' => {
                taken = rest.find('}').map_or(rest.len(), |end| end + 1);
                let counts = rest[..taken].split(|letter: char| !letter.is_ascii_digit());
                let most = counts.filter_map(|count| count.parse().ok()).max().unwrap_or(1_u64);
                last = last.saturating_mul(most.saturating_sub(1));
            }
            '[' => {
                let mut is_escaped = false;
                let end = rest.find(|letter| {
                    letter == ']' && !is_escaped || {
                        is_escaped = letter == '\\' && !is_escaped;
                        false
                    }
                });
                taken = end.map_or(rest.len(), |end| end + 1);
                last = 1 + taken as u64 / 16;
            }
            '\\' => {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
                last = 1;
            }
            _ => last = 1,
        }
        if letter != '(' {
            let sum = sums.last_mut().expect("the outermost is never closed");
            *sum = sum.saturating_add(last);
        }
        rest = &rest[taken..];
    }
    sums.into_iter().fold(0, u64::saturating_add)
}

/// Is this `}` the end of `{2}`, `{2,}` or `{2,4}`?
fn closes_count(letter: char, before: &str) -> bool {
    let count = before.rsplit_once('{').map(|(_, count)| count);
    letter == '}'
        && count.is_some_and(|count| {
            count.starts_with(|first: char| first.is_ascii_digit())
                && count.chars().all(|letter| letter.is_ascii_digit() || letter == ',')
                && count.matches(',').count() <= 1
        })
}

/// A known form of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The form that browsers take, with a dot in the domain.
    Email,
    /// `http://` or `https://`.
    Url,
    /// International, `+` and 7 to 15 digits; stored without separators (E.164).
    Phone,
    /// `2026-01-31`
    Date,
    /// `08:30` or `08:30:00`
    Time,
    /// RFC 3339 with any offset; stored in UTC.
    DateTime,
    /// A decimal number as text: `-12.50`.
    Decimal,
}

const EMAIL: &str = "^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\
                     (?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+$";
const URL: &str = "^https?://[^\\x00-\\x20\\x7F\"<>]+$";
/// What a telephone number looks like in general; the plans of the countries (`phone`) say more.
const PHONE: &str = "^(?:\\+|00)[1-9](?:[ ()./-]*[0-9]){6,14}$";
/// Every day that there is, and no 30 February.
macro_rules! date {
    () => {
        "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)\
         |02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])\
         |(?:[02468][048]|[13579][26])00)-02-29)"
    };
}
const DATE: &str = concat!("^", date!(), "$");
const TIME: &str = "^(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?$";
const DATE_TIME: &str = concat!(
    "^",
    date!(),
    "T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$"
);
const DECIMAL: &str = "^-?[0-9]{1,15}(?:\\.[0-9]+)?$";

impl Format {
    /// The format of a field type.
    pub(super) fn of(type_name: &str) -> Option<Self> {
        Some(match type_name {
            "EMAIL" => Self::Email,
            "URL" => Self::Url,
            "PHONE" => Self::Phone,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "DATE_TIME" => Self::DateTime,
            _ => return None,
        })
    }

    /// The pattern, as it stands in the JSON Schema.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Email => EMAIL,
            Self::Url => URL,
            Self::Phone => PHONE,
            Self::Date => DATE,
            Self::Time => TIME,
            Self::DateTime => DATE_TIME,
            Self::Decimal => DECIMAL,
        }
    }

    /// Characters at most.
    pub fn max_chars(self) -> usize {
        match self {
            Self::Email => 254,
            Self::Url => 2_048,
            Self::Phone | Self::Date | Self::Time | Self::DateTime => 64,
            Self::Decimal => 400,
        }
    }

    /// Does the text have this form?
    pub fn is_match(self, text: &str) -> bool {
        static COMPILED: LazyLock<[Regex; 7]> = LazyLock::new(|| {
            [EMAIL, URL, PHONE, DATE, TIME, DATE_TIME, DECIMAL]
                .map(|pattern| Regex::new(pattern).expect("a constant pattern compiles"))
        });
        COMPILED[self as usize].is_match(text)
    }

    /// What a text of this form looks like, for the person who typed another one.
    pub fn example(self) -> &'static str {
        match self {
            Self::Email => "An e-mail address looks like name@example.org.",
            Self::Url => "A web address begins with https:// or http://.",
            Self::Phone => "A telephone number begins with + and the country: +84 912 345 678.",
            Self::Date => "A date looks like 2026-01-31.",
            Self::Time => "A time looks like 08:30.",
            Self::DateTime => "A date with time looks like 2026-01-31T08:30:00Z.",
            Self::Decimal => "A decimal number looks like 12.50.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_that_there_is_is_a_date_and_no_other() {
        for year in [0_i32, 4, 100, 1896, 1900, 2000, 2023, 2024, 2100, 2400, 9999] {
            for month in 0..=13 {
                for day in 0..=32 {
                    let is = chrono::NaiveDate::from_ymd_opt(year, month, day).is_some();
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    assert_eq!(Format::Date.is_match(&text), is, "{text}");
                }
            }
        }
    }

    #[test]
    fn patterns_mean_the_same_everywhere_or_are_refused() {
        assert_eq!(
            Pattern::parse(r"^\d{2}[A-Z\d]-.\.$").unwrap().text,
            "^[0-9]{2}[A-Z0-9]-[^\n\r\u{2028}\u{2029}]\\.$"
        );
        for bad in [
            r"\b",
            r"\p{L}",
            "(?=a)",
            "(?i)a",
            "[[:alpha:]]",
            "[a&&b]",
            "a}",
            "]",
            "(",
            "a{2",
            r"\",
            "[]a]",
            "^*",
            "a**",
            "a{2}{3}",
            "a++",
            "(*)",
            "a{,2}",
            "a{1000}{1000}{1000}",
            "(?:(?:[^a]{50}){50}){50}",
            "(?:a{3}b){501}",
            "a{2001}",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse("^[0-9]{2}A-[0-9]{5}$").unwrap().is_match("30A-12345"));
        for (text, wanted) in [
            ("abc", 3),
            (r"a\{b{2,4}c{0}", 7),
            ("(?:a{3}b){500}", 2_000),
            (r"[a\]b]{10}", 10),
            ("a{2,}(b|c)+", 6),
        ] {
            let weight = weight(text);
            assert_eq!(weight, wanted, "{text}");
        }
    }
}
