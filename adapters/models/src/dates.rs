//! Times as servers write them.

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7, the form that is in use).
pub(crate) fn http_date(text: &str) -> Option<i64> {
    let (_, date) = text.split_once(", ")?;
    let fields: Vec<&str> = date.split_ascii_whitespace().collect();
    let [day, month, year, time, "GMT"] = fields.as_slice() else { return None };
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| name == month)? as i64 + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<i64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = clock.as_slice() else { return None };
    Some(days_since_1970(year, month, day) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

/// Days from 1970-01-01 in the Gregorian calendar. Years start in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
}

/// The same in milliseconds.
pub(crate) fn http_date_ms(text: &str) -> Option<i64> {
    http_date(text)?.checked_mul(1_000)
}

/// Milliseconds since 1970 of a time such as `2026-11-28T02:03:04.5Z` or with an offset (RFC 3339).
pub(crate) fn rfc3339_ms(text: &str) -> Option<i64> {
    let (date, time) = text.trim().split_once(['T', 't'])?;
    let date: Vec<i64> = date.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year, month @ 1..=12, day @ 1..=31] = date[..] else { return None };
    let end = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(end);
    let clock: Vec<f64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    let since_midnight = hours * 3_600.0 + minutes * 60.0 + seconds;
    if !(0.0..86_401.0).contains(&since_midnight) || !(0..=9_999).contains(&year) {
        return None;
    }
    let offset: i64 = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = hours.parse::<u8>().map(i64::from).ok()? * 60 + minutes.parse::<u8>().map(i64::from).ok()?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    Some(days_since_1970(year, month, day) * 86_400_000 + (since_midnight * 1_000.0) as i64 - offset * 60_000)
}

/// A time such as `2026-11-28T02:03:04Z`, from seconds since 1970.
pub(crate) fn instant(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The reverse of `days_since_1970`: four hundred years at a time, of years that begin in March.
    let days = days + 719_468;
    let (cycle, of_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * march + 2) / 5 + 1, if march < 10 { march + 3 } else { march - 9 });
    let year = cycle * 400 + year + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_1970_over_leap_years() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
    }

    #[test]
    fn a_time_that_is_written_is_read_as_the_same() {
        assert_eq!(instant(784_111_777), "1994-11-06T08:49:37Z");
        for seconds in (0..4_000_000_000).step_by(12_345_677).chain([951_782_399, 951_782_400, 4_107_542_400]) {
            assert_eq!(rfc3339_ms(&instant(seconds)), Some(seconds * 1_000), "{}", instant(seconds));
        }
    }

    #[test]
    fn times_are_read_with_fractions_and_offsets_and_nonsense_is_not() {
        assert_eq!(rfc3339_ms("1994-11-06T08:49:37Z"), Some(784_111_777_000));
        assert_eq!(rfc3339_ms("1994-11-06T08:49:37.250Z"), Some(784_111_777_250));
        assert_eq!(rfc3339_ms("1994-11-06T10:49:37+02:00"), Some(784_111_777_000));
        assert_eq!(rfc3339_ms("1994-11-06T04:19:37-04:30"), Some(784_111_777_000));
        for nonsense in
            ["", "soon", "1994-11-06", "1994-13-06T08:49:37Z", "1994-11-06T99:49:37Z", "1994-11-06T08:49:37", "1994-11-06TéZ"]
        {
            assert_eq!(rfc3339_ms(nonsense), None, "{nonsense}");
        }
    }
}
