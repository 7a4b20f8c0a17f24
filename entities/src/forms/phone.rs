//! Telephone numbers: as people write them and phones copy them, into E.164. The plans of the countries
//! (lengths, trunk prefixes such as the zero in `+44 (0)20`) are those of libphonenumber. Not here: the
//! pattern that the JSON Schema has.

use phonenumber::{Mode, PhoneNumber, metadata::DATABASE};

/// Characters of a number as it is written, at most.
const MAX_CHARS: usize = 64;
/// The zeros of the decimal digits that people write numbers with beside ASCII's (Unicode, general category Nd): the
/// other nine follow each. Full-width digits are in it.
const ZEROS: [char; 14] = [
    '\u{660}', '\u{6f0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}', '\u{e50}',
    '\u{ed0}', '\u{f20}', '\u{1040}', '\u{17e0}', '\u{ff10}',
];

/// Why a text cannot be taken as a telephone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneError {
    /// It has other characters than a number has, or does not begin with the country.
    Form,
    /// No number of that country looks like this.
    Plan,
}

/// A number in the digits of ASCII, with the country first.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedNumber {
    digits: String,
}

impl ParsedNumber {
    /// Reads a number as it is written: digits of any script, spaces, dashes, dots, slashes and brackets between them,
    /// the marks for the direction of writing that phones put around what they copy, `tel:` and `00` for `+`.
    ///
    /// # Errors
    /// `Form`, for anything else.
    pub fn read(text: &str) -> Result<Self, PhoneError> {
        if text.chars().count() > MAX_CHARS {
            return Err(PhoneError::Form);
        }
        let text = text.trim_matches(is_filler);
        let text =
            text.get(..4).filter(|head| head.eq_ignore_ascii_case("tel:")).map_or(text, |_| &text[4..]);
        let mut digits = String::with_capacity(text.len());
        for sign in text.chars().filter(|sign| !is_filler(*sign)) {
            match ascii_digit(sign) {
                Some(digit) => digits.push(digit),
                None if matches!(sign, '+' | '\u{ff0b}') && digits.is_empty() => digits.push('+'),
                None => return Err(PhoneError::Form),
            }
        }
        if let Some(rest) = digits.strip_prefix("00") {
            digits = format!("+{rest}");
        }
        match digits.as_bytes() {
            [b'+', b'1'..=b'9', ..] => Ok(Self { digits }),
            _ => Err(PhoneError::Form),
        }
    }

    /// The first digits, which tell the country: numbers with the same ones are looked up in the same plans.
    pub fn region(&self) -> &str {
        self.digits.get(..self.digits.len().min(4)).unwrap_or_default()
    }

    /// The number in E.164: `+` and digits, as any telephone can dial it.
    ///
    /// # Errors
    /// `Plan`, where the country has no such numbers.
    pub fn to_e164(&self) -> Result<String, PhoneError> {
        let number = phonenumber::parse(None, &self.digits).map_err(|_| PhoneError::Plan)?;
        let e164 = number.format().mode(Mode::E164).to_string();
        // A plan may be newer than what is known here: a number that is as long as others of its country is taken where
        // nothing had to be understood of it.
        let is_plausible = || e164 == self.digits && is_possible(&number);
        if number.is_valid() || is_plausible() { Ok(e164) } else { Err(PhoneError::Plan) }
    }
}

/// Is it as long as others of its country, without a trunk prefix?
fn is_possible(number: &PhoneNumber) -> bool {
    let national = number.national().to_string();
    let length = u16::try_from(national.len()).unwrap_or(u16::MAX);
    DATABASE.by_code(&number.code().value()).into_iter().flatten().any(|plan| {
        let has_prefix = plan.national_prefix().is_some_and(|prefix| national.starts_with(prefix));
        let mut kinds = [plan.descriptors().fixed_line(), plan.descriptors().mobile()].into_iter().flatten();
        !has_prefix && kinds.any(|kind| kind.possible_length().contains(&length))
    })
}

/// What stands between digits, or around them, and says nothing.
fn is_filler(sign: char) -> bool {
    sign.is_whitespace()
        || matches!(
            sign,
            '-' | '.' | '/' | '(' | ')' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{30fc}'
                // Zero width, and the direction of writing.
                | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'
                | '\u{2066}'..='\u{2069}' | '\u{feff}'
                // Full width.
                | '\u{ff08}' | '\u{ff09}' | '\u{ff0d}' | '\u{ff0e}' | '\u{ff0f}'
        )
}

fn ascii_digit(sign: char) -> Option<char> {
    if sign.is_ascii_digit() {
        return Some(sign);
    }
    let digit = |zero: &char| (sign as u32).checked_sub(*zero as u32).filter(|digit| *digit < 10);
    char::from_digit(ZEROS.iter().find_map(digit)?, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e164(text: &str) -> Result<String, PhoneError> {
        ParsedNumber::read(text)?.to_e164()
    }

    #[test]
    fn numbers_are_taken_as_people_write_them() {
        for (written, wanted) in [
            ("+84 912 345 678", "+84912345678"),
            ("+44 (0)20 7946 0958", "+442079460958"),
            ("+49 (0) 30 901820", "+4930901820"),
            ("+49/30/901820", "+4930901820"),
            ("+49 0151 23456789", "+4915123456789"),
            ("+41 (0)44 668 18 00", "+41446681800"),
            ("+46 (0)8 123 456 78", "+46812345678"),
            ("+33 06 12 34 56 78", "+33612345678"),
            ("+81 (0)3-1234-5678", "+81312345678"),
            ("+61 (0)4 1234 5678", "+61412345678"),
            ("+972 (0)50-234-5678", "+972502345678"),
            ("+7 8 495 123 45 67", "+74951234567"),
            ("+36 06 1 234 5678", "+3612345678"),
            // Zeros that belong to the number.
            ("+39 06 6982", "+39066982"),
            ("+378 0549 886377", "+3780549886377"),
            ("+225 01 02 03 04 05", "+2250102030405"),
            // Small countries.
            ("+683 4002", "+6834002"),
            ("+290 22345", "+29022345"),
            ("+247 62889", "+24762889"),
            // What keyboards and phones put in.
            ("+84\u{a0}912\u{2013}345\u{2011}678", "+84912345678"),
            ("\u{202a}+84 912 345 678\u{202c}", "+84912345678"),
            (
                "\u{ff0b}\u{ff18}\u{ff14}\u{ff19}\u{ff11}\u{ff12}\u{ff13}\u{ff14}\u{ff15}\u{ff16}\u{ff17}\u{ff18}",
                "+84912345678",
            ),
            (
                "+\u{668}\u{664}\u{669}\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}\u{667}\u{668}",
                "+84912345678",
            ),
            ("tel:+84-912-345-678", "+84912345678"),
            ("0084 912 345 678", "+84912345678"),
            // Of a block that libphonenumber may not know yet.
            ("+12002003000", "+12002003000"),
        ] {
            assert_eq!(e164(written).as_deref(), Ok(wanted), "{written}");
            assert_eq!(e164(wanted).as_deref(), Ok(wanted), "what is stored stays as it is");
        }
    }

    #[test]
    fn what_no_telephone_could_dial_is_refused() {
        for (written, why) in [
            ("", PhoneError::Form),
            ("+", PhoneError::Form),
            ("0912345678", PhoneError::Form),
            ("84912345678", PhoneError::Form),
            ("+0123456789", PhoneError::Form),
            ("+84+912345678", PhoneError::Form),
            ("+84912345678 abc", PhoneError::Form),
            ("+1 800 FLOWERS", PhoneError::Form),
            ("+1 202 555 0123 ext. 5", PhoneError::Form),
            ("+84 912 345 678, +84 912 345 679", PhoneError::Form),
            ("+84", PhoneError::Plan),
            ("+84 912", PhoneError::Plan),
            ("+84-91-234-56-78-90-12-3", PhoneError::Plan),
            ("+999 123456789", PhoneError::Plan),
            ("+44 (0)20 7946 095", PhoneError::Plan),
            ("+44 (0)20 7946 0958 1", PhoneError::Plan),
        ] {
            assert_eq!(e164(written), Err(why), "{written}");
        }
    }

    #[test]
    fn the_example_of_every_country_stays_as_it_is() {
        let mut count = 0;
        for plan in DATABASE.iter() {
            let descriptors = plan.descriptors();
            for example in [descriptors.mobile(), descriptors.fixed_line()] {
                let Some(example) = example.and_then(|kind| kind.example()) else { continue };
                let number = format!("+{}{example}", plan.country_code());
                assert_eq!(e164(&number).as_deref(), Ok(&*number));
                count += 1;
            }
        }
        assert!(count > 400, "{count} examples");
    }
}
