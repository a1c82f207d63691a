//! Dates as git reads them in `GIT_AUTHOR_DATE`.

use helix_protocol::Timestamp;

/// An instant, and the minutes east of UTC that it was told in: `1700000000 +0100`, `@0 +0000`, RFC 2822, ISO 8601, or as git's log
/// shows it. One without a zone is of the zone with `offset_minutes`. `None` for what is no date, or lies before 1970.
pub fn parse_date(text: &str, offset_minutes: i16) -> Option<(Timestamp, i16)> {
    let text = text.trim();
    let (sign, minutes) = (if offset_minutes < 0 { '-' } else { '+' }, offset_minutes.unsigned_abs());
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let zoned = [
        format!("{text} {sign}{hours:02}{minutes:02}"),
        format!("{text}{sign}{hours:02}:{minutes:02}"),
        text.strip_suffix('Z').map_or_else(|| text.to_owned(), |local| format!("{local}+00:00")),
    ];
    // A date without a time is whatever the clock shows then, and git refuses it.
    let has_time = text.starts_with('@') || text.contains([':', ' ']) || text.bytes().all(|byte| byte.is_ascii_digit());
    let read = |text: &String| gix::date::parse(text, None).ok();
    let time = Some(text.to_owned()).iter().chain(&zoned).find_map(read).filter(|time| has_time && time.seconds >= 0)?;
    Some((Timestamp(time.seconds.checked_mul(1_000_000)?), i16::try_from(time.offset / 60).ok()?))
}
