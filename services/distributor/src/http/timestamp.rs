//! Times as users write them in a query string: RFC 3339, or seconds since the Unix epoch with or without a fraction.

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither RFC 3339 nor seconds since 1970")]
pub struct TimestampError {
    text: String,
}

const NS_DIGITS: usize = 9;
const SECOND_NS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Nanoseconds since the Unix epoch. Digits past the ninth of a fraction are dropped.
pub(super) fn parse(text: &str) -> Result<i64, TimestampError> {
    let parsed = if text.contains(':') { rfc3339(text) } else { unix_seconds(text) };
    parsed.ok_or_else(|| TimestampError { text: text.chars().take(64).collect() })
}

fn unix_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').map_or((text, ""), |(whole, part)| (whole, part));
    number(seconds)?.checked_mul(SECOND_NS)?.checked_add(fraction_ns(fraction)?)
}

/// `2026-01-31T12:34:56[.789](Z|+01:00)`; the date and the time may be parted by a space.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (clock, fraction) = time.split_once('.').map_or((time, ""), |(whole, part)| (whole, part));

    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = fields(clock, ':', [2, 2, 2])?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        // A leap second counts as the one after it.
        && second <= 60;
    if !in_range {
        return None;
    }
    let local = days_since_epoch(year, month, day) * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    (local - zone_seconds(zone)?).checked_mul(SECOND_NS)?.checked_add(fraction_ns(fraction)?)
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let [hours, minutes] = fields(zone.get(1..)?, ':', [2, 2])?;
    let seconds = hours * 3_600 + minutes * 60;
    (hours < 24 && minutes < 60).then_some(if zone.starts_with('-') { -seconds } else { seconds })
}

/// Exactly these many numbers of these many digits.
fn fields<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for (field, width) in found.iter_mut().zip(digits) {
        *field = number(parts.next().filter(|part| part.len() == width)?)?;
    }
    parts.next().is_none().then_some(found)
}

fn number(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn fraction_ns(digits: &str) -> Option<i64> {
    if digits.is_empty() {
        return Some(0);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = &digits[..digits.len().min(NS_DIGITS)];
    Some(number(kept)? * 10i64.pow((NS_DIGITS - kept.len()) as u32))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March, so that the leap
/// day is a year's last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let march_year = if month > 2 { year } else { year - 1 };
    let march_month = (month + 9) % 12;
    let leap_days = march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    march_year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse(text).ok(), expected, "{text:?}");
    }

    #[test]
    fn seconds_are_exact_to_the_nanosecond() {
        check("0", Some(0));
        check("1700000000", Some(1_700_000_000 * SECOND_NS));
        check("1700000000.5", Some(1_700_000_000_500_000_000));
        check("1700000000.123456789", Some(1_700_000_000_123_456_789));
        check("1700000000.1234567899", Some(1_700_000_000_123_456_789));
        for text in ["", "-1", "+1", "1e9", "1.2.3", "1,5", "now", "1700000000.x", "99999999999999999999"] {
            check(text, None);
        }
    }

    #[test]
    fn rfc3339_is_read_in_any_zone() {
        check("1970-01-01T00:00:00Z", Some(0));
        check("2023-11-14T22:13:20Z", Some(1_700_000_000 * SECOND_NS));
        check("2023-11-14t22:13:20.25z", Some(1_700_000_000_250_000_000));
        check("2023-11-15T03:43:20+05:30", Some(1_700_000_000 * SECOND_NS));
        check("2023-11-14 14:13:20-08:00", Some(1_700_000_000 * SECOND_NS));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800 * SECOND_NS));
        check("2000-03-01T00:00:00Z", Some(951_868_800 * SECOND_NS));
        check("1969-12-31T23:59:59Z", Some(-SECOND_NS));
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in [
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-32T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:60:00Z",
            "2023-01-01T00:00:00",
            "2023-01-01T00:00Z",
            "2023-1-1T00:00:00Z",
            "2023-01-01T00:00:00+99:00",
            "2023-01-01T00:00:00Zx",
            "9999-01-01T00:00:00Z",
            "ä:ö",
            "2023-01-01T00:00:00+é:0",
        ] {
            check(text, None);
        }
    }
}
