//! Sizes and times as people read them, the same in messages, listings and events.

/// `340 bytes`, `12 KiB`, `512 MiB`, `1.5 GiB`, `100 GiB`.
pub fn bytes_in_words(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => mib_in_words(bytes / 1_048_576),
    }
}

/// `512 MiB`, `1.5 GiB`, `100 GiB`.
pub fn mib_in_words(mib: u64) -> String {
    let tenths = mib % 1_024 * 10 / 1_024;
    match mib {
        0..1_024 => format!("{mib} MiB"),
        _ if tenths == 0 => format!("{} GiB", mib / 1_024),
        _ => format!("{}.{tenths} GiB", mib / 1_024),
    }
}

/// `250 ms`, `90 s`, `30 min`, `12 h`: a limit in the largest unit that has it whole.
pub fn ms_in_words(ms: u64) -> String {
    let units = [(3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((unit, word)) => format!("{} {word}", ms / unit),
        None => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        let sizes = [1, 1_023, 1_024, 1_048_576, 1_610_612_736, 107_374_182_400].map(bytes_in_words);
        assert_eq!(sizes, ["1 byte", "1023 bytes", "1 KiB", "1 MiB", "1.5 GiB", "100 GiB"]);
        let times = [0, 250, 1_000, 1_500, 90_000, 1_800_000, 43_200_000].map(ms_in_words);
        assert_eq!(times, ["0 ms", "250 ms", "1 s", "1500 ms", "90 s", "30 min", "12 h"]);
    }
}
