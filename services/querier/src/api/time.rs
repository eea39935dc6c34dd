//! Instants as people and Prometheus write them: RFC 3339, or seconds since the Unix epoch.

use cambium_model::time::SECOND_NS;

/// What a time may look like, for messages.
pub(super) const FORMS: &str =
    "a time: RFC 3339 such as 2026-01-02T15:04:05Z, or unix seconds such as 1767366245.5";

/// Digits of a second's fraction that fit nanoseconds.
const FRACTION_DIGITS: usize = 9;

/// Nanoseconds since the epoch, or `None` where the text is no time or lies outside 1677 to 2262.
pub(super) fn parse(text: &str) -> Option<i64> {
    unix_seconds(text).or_else(|| rfc3339(text))
}

/// Decimal seconds, exact to the nanosecond; further digits are cut off.
fn unix_seconds(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !decimal(whole) || !decimal(fraction) {
        return None;
    }
    let nanos = whole.parse::<i64>().ok()?.checked_mul(SECOND_NS)?.checked_add(fraction_ns(fraction)?)?;
    Some(if negative { -nanos } else { nanos })
}

/// The digits after a decimal point as nanoseconds.
fn fraction_ns(digits: &str) -> Option<i64> {
    let kept = digits.get(..digits.len().min(FRACTION_DIGITS))?;
    if kept.is_empty() {
        return Some(0);
    }
    Some(kept.parse::<i64>().ok()? * 10_i64.pow((FRACTION_DIGITS - kept.len()) as u32))
}

/// `2026-01-02T15:04:05.123Z`, `2026-01-02T15:04:05+02:00`; a space may stand for the T.
fn rfc3339(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let bytes = text.as_bytes();
    let separated = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    if bytes.len() < 20 || separated.iter().any(|(at, allowed)| !allowed.as_bytes().contains(&bytes[*at])) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    // A leap second is the first one of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = &text[19..];
    let (fraction, zone) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(after) => after.split_at(after.bytes().position(|byte| !byte.is_ascii_digit())?),
    };
    if rest.starts_with('.') && fraction.is_empty() {
        return None;
    }
    let seconds = days_from_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    (seconds - zone_seconds(zone)?).checked_mul(SECOND_NS)?.checked_add(fraction_ns(fraction)?)
}

/// `Z`, `+02:00`, `-05:30` as seconds east of Greenwich.
fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let part = |text: &str, max: i64| {
        let two_digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|value| two_digits && *value <= max)
    };
    Some(sign * (part(hours, 23)? * 3_600 + part(minutes, 59)? * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years begin in March here, so that leap days come last.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Days from 0000-03-01 to 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let cases = [
            ("0", Some(0)),
            ("1767366245", Some(1_767_366_245 * SECOND_NS)),
            ("1767366245.5", Some(1_767_366_245_500_000_000)),
            ("1767366245.1234567899", Some(1_767_366_245_123_456_789)),
            ("-1.5", Some(-1_500_000_000)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-SECOND_NS)),
            ("2026-01-02T15:04:05Z", Some(1_767_366_245 * SECOND_NS)),
            ("2026-01-02t15:04:05.25z", Some(1_767_366_245_250_000_000)),
            ("2026-01-02 17:04:05+02:00", Some(1_767_366_245 * SECOND_NS)),
            ("2026-01-02T09:34:05-05:30", Some(1_767_366_245 * SECOND_NS)),
            ("2000-02-29T00:00:00Z", Some(951_782_400 * SECOND_NS)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800 * SECOND_NS)),
            ("", None),
            ("now", None),
            ("1e9", None),
            ("1.5.5", None),
            ("99999999999999999999", None),
            ("9999-01-01T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-01-02T24:00:00Z", None),
            ("2026-01-02T15:04:05", None),
            ("2026-01-02T15:04:05.Z", None),
            ("2026-01-02T15:04:05.5", None),
            ("2026-01-02T15:04:05+0200", None),
            ("2026-01-02T15:04:05ü", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
