//! Dates and times by ISO 8601, as Python's `datetime.fromisoformat` reads them.
//! Vocabulary: names no stage.
//!
//! nixpkgs' dockerTools reads `created` by that function, so that flakes have
//! `created = builtins.substring 0 8 self.lastModifiedDate;`, which is `20240513`.

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset, Weekday};

/// Parses a date and time by RFC 3339; or else by ISO 8601 a date, or a date and a time with any one
/// character between them, in UTC where it has no offset; or else by the digits of a date and a time
/// in UTC, as in `self.lastModifiedDate` of a flake.
pub fn parse(text: &str) -> Option<OffsetDateTime> {
    // Neither Python nor Docker reads a leap second.
    let has_leap_second = text.get(17..19) == Some("60");
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|_| !has_leap_second);
    parsed.or_else(|| parse_iso_8601(text)).or_else(|| parse_digits(text))
}

/// Parses `YYYYMMDDhhmmss`.
fn parse_digits(text: &str) -> Option<OffsetDateTime> {
    let (date, time) = text.split_at_checked(8).filter(|_| text.len() == 14)?;
    parse_iso_8601(&format!("{date}T{time}"))
}

fn parse_iso_8601(text: &str) -> Option<OffsetDateTime> {
    let mut rest = Rest(text);
    let date = date(&mut rest)?;
    if rest.0.is_empty() {
        return Some(PrimitiveDateTime::new(date, Time::MIDNIGHT).assume_utc());
    }
    let mut characters = rest.0.chars();
    characters.next();
    rest = Rest(characters.as_str());
    let time = time_of_day(&mut rest)?;
    let offset = offset(&mut rest)?;
    rest.0.is_empty().then(|| PrimitiveDateTime::new(date, time).assume_offset(offset))
}

/// The text that is not read yet.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    /// Takes a number of exactly `digits` digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse().ok())?
    }

    /// Takes a character if it is the next one.
    fn take(&mut self, character: char) -> bool {
        let rest = self.0.strip_prefix(character);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Takes `:` in the extended format, and nothing in the basic format. The first call decides
    /// the format and records it in `extended`.
    fn colon(&mut self, extended: &mut Option<bool>) -> Option<()> {
        let is_there = self.take(':');
        (*extended.get_or_insert(is_there) == is_there).then_some(())
    }

    fn begins_with_digit(&self) -> bool {
        self.0.starts_with(|character: char| character.is_ascii_digit())
    }
}

/// Parses `YYYY-MM-DD`, `YYYYMMDD`, and a week's day: `YYYY-Www-D`, `YYYYWwwD`, or its Monday.
fn date(rest: &mut Rest) -> Option<Date> {
    let year = i32::try_from(rest.number(4)?).ok()?;
    let is_extended = rest.take('-');
    if rest.take('W') {
        let week = rest.number(2)?;
        let has_day = if is_extended { rest.take('-') } else { rest.begins_with_digit() };
        let day = if has_day { rest.number(1)? } else { 1 };
        let day = (1..=7).contains(&day).then(|| Weekday::Monday.nth_next(day as u8 - 1))?;
        return Date::from_iso_week_date(year, u8::try_from(week).ok()?, day).ok();
    }
    let month = Month::try_from(u8::try_from(rest.number(2)?).ok()?).ok()?;
    if is_extended != rest.take('-') {
        return None;
    }
    Date::from_calendar_date(year, month, u8::try_from(rest.number(2)?).ok()?).ok()
}

/// Parses `HH`, `HH:MM`, `HH:MM:SS` or the same without colons, with a fraction of a second.
fn time_of_day(rest: &mut Rest) -> Option<Time> {
    let (hour, minute, second, nanosecond) = clock(rest)?;
    Time::from_hms_nano(hour, minute, second, nanosecond).ok()
}

/// Parses `Z`, nothing, or a sign and a time.
fn offset(rest: &mut Rest) -> Option<UtcOffset> {
    if rest.0.is_empty() || rest.take('Z') {
        return Some(UtcOffset::UTC);
    }
    let sign = if rest.take('-') { -1 } else { rest.take('+').then_some(1)? };
    let (hours, minutes, seconds, _) = clock(rest)?;
    let part = |value: u8| i8::try_from(value).ok().map(|value| value * sign);
    // RFC 3339 has no seconds in offsets, and Python refuses a day or more.
    if hours > 23 || minutes > 59 || seconds != 0 {
        return None;
    }
    UtcOffset::from_hms(part(hours)?, part(minutes)?, 0).ok()
}

fn clock(rest: &mut Rest) -> Option<(u8, u8, u8, u32)> {
    let mut extended = None;
    let mut parts = [0_u8; 3];
    for (index, part) in parts.iter_mut().enumerate() {
        let is_next = index == 0 || rest.begins_with_digit() || rest.0.starts_with(':');
        if !is_next {
            return Some((parts[0], parts[1], parts[2], 0));
        }
        if index > 0 {
            rest.colon(&mut extended)?;
        }
        *part = u8::try_from(rest.number(2)?).ok()?;
    }
    let mut nanosecond = 0;
    if rest.take('.') || rest.take(',') {
        let digits = rest.0.len() - rest.0.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (fraction, behind) = rest.0.split_at(digits);
        rest.0 = behind;
        // Python has microseconds, and cuts what is below.
        let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
        nanosecond = (digits > 0).then(|| six.parse::<u32>().ok())?? * 1000;
    }
    Some((parts[0], parts[1], parts[2], nanosecond))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with what Python 3.11's `datetime.fromisoformat` makes of the same texts.
    #[test]
    fn reads_what_python_reads() {
        for (text, expected) in [
            ("20240513", "2024-05-13T00:00:00Z"),
            ("2024-05-13", "2024-05-13T00:00:00Z"),
            ("2024-05-13 09:31:10", "2024-05-13T09:31:10Z"),
            ("2024-05-13T09:31", "2024-05-13T09:31:00Z"),
            ("2024-05-13T09", "2024-05-13T09:00:00Z"),
            ("20240513T093110Z", "2024-05-13T09:31:10Z"),
            ("20240513T0931", "2024-05-13T09:31:00Z"),
            ("2024-05-13T09:31:10.5", "2024-05-13T09:31:10.5Z"),
            ("2024-05-13T09:31:10,123456789", "2024-05-13T09:31:10.123456Z"),
            ("2024-05-13T09:31:10+0200", "2024-05-13T09:31:10+02:00"),
            ("2024-05-13T09:31:10-02", "2024-05-13T09:31:10-02:00"),
            ("2024-W20-1", "2024-05-13T00:00:00Z"),
            ("2024W201", "2024-05-13T00:00:00Z"),
            ("2024-W20", "2024-05-13T00:00:00Z"),
            ("2024-05-13x09:31:10", "2024-05-13T09:31:10Z"),
        ] {
            let found = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(found.format(&Rfc3339).unwrap(), expected, "{text}");
        }
    }

    /// Python refuses these, and they have one meaning.
    #[test]
    fn reads_the_date_of_a_flake() {
        let parsed = parse("20240513093110").unwrap();
        assert_eq!(parsed.format(&Rfc3339).unwrap(), "2024-05-13T09:31:10Z");
        for text in
            ["202405130931", "20240513246000", "2024051309311", "2024051309311Z", "20241332093110"]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn refuses_what_python_refuses() {
        for text in [
            "",
            "2024",
            "2024-05",
            "202405",
            "2024-0513",
            "202405-13",
            "2024-13-01",
            "2024-02-30",
            "20240513T",
            "2024-05-13T9",
            "2024-05-13T09:3",
            "2024-05-13T09:31:",
            "2024-05-13T0931:10",
            "2024-05-13T09:31:10.",
            "2024-05-13T24:00:00",
            "2024-05-13T09:31:10+24:00",
            "2024-W54-1",
            "2024-W20-8",
            "2016-12-31T23:59:60Z",
            "yesterday",
            "２０240513",
            "20240513T09:31:10Zx",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
