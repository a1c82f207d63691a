//! Instants as people read them. The calendar is the proleptic Gregorian one.

use helix_protocol::Timestamp;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Civil {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    second: i64,
}

/// As git's log has it: `Thu Jan 1 00:00:00 1970 +0000`.
pub fn long(time: Timestamp, offset_minutes: i16) -> String {
    let Civil { year, month, day, weekday, second } = civil(time, offset_minutes);
    let clock = clock(second);
    format!("{} {} {day} {clock} {year} {}", DAYS[weekday], MONTHS[month - 1], offset(offset_minutes, ""))
}

/// As ISO 8601 has it: `1970-01-01T00:00:00+00:00`.
pub fn iso(time: Timestamp, offset_minutes: i16) -> String {
    let Civil { year, month, day, second, .. } = civil(time, offset_minutes);
    format!("{year:04}-{month:02}-{day:02}T{}{}", clock(second), offset(offset_minutes, ":"))
}

/// Short, for tables: `1970-01-01 00:00:00`.
pub fn short(time: Timestamp, offset_minutes: i16) -> String {
    let Civil { year, month, day, second, .. } = civil(time, offset_minutes);
    format!("{year:04}-{month:02}-{day:02} {}", clock(second))
}

fn clock(second: i64) -> String {
    format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

fn offset(minutes: i16, between: &str) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.unsigned_abs();
    format!("{sign}{:02}{between}{:02}", minutes / 60, minutes % 60)
}

fn civil(time: Timestamp, offset_minutes: i16) -> Civil {
    let seconds = time.0.div_euclid(1_000_000) + i64::from(offset_minutes) * 60;
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from March, so that a leap day is the last one, in cycles of 400 years with 146,097 days.
    let shifted = days + 719_468;
    let (cycle, day_of_cycle) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    let weekday = usize::try_from(days.rem_euclid(7)).unwrap_or_default();
    Civil { year, month: usize::try_from(month).unwrap_or(1), day, weekday, second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_git() {
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);
        assert_eq!(long(at(0), 0), "Thu Jan 1 00:00:00 1970 +0000");
        assert_eq!(long(at(1_709_210_096), 330), "Thu Feb 29 18:04:56 2024 +0530");
        assert_eq!(long(at(951_782_399), -480), "Mon Feb 28 15:59:59 2000 -0800");
        assert_eq!(iso(at(-1), 0), "1969-12-31T23:59:59+00:00");
        assert_eq!(short(at(4_107_542_399), 0), "2100-02-28 23:59:59");
    }
}
