//! Money, sizes and times as people write them on a command line.

use helix_protocol::Money;

/// US dollars.
pub(super) fn parse_dollars(text: &str) -> Result<Money, String> {
    let dollars: f64 =
        text.trim_start_matches('$').parse().map_err(|_| "an amount of US dollars is expected, for example 1.50".to_owned())?;
    if !(0.0..=1e9).contains(&dollars) {
        return Err("an amount from 0 to a billion US dollars is expected".to_owned());
    }
    #[allow(clippy::cast_possible_truncation)]
    Ok(Money((dollars * 1e6).round() as i64))
}

/// A size in MiB.
pub(super) fn parse_mib(text: &str) -> Result<u64, String> {
    let wanted = || "a size in M, G or T is expected, for example 512M or 8G".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale = match unit {
        "" if text == "0" => 1,
        "M" | "MiB" => 1,
        "G" | "GiB" => 1024,
        "T" | "TiB" => 1024 * 1024,
        _ => return Err(wanted()),
    };
    let number: u64 = digits.parse().map_err(|_| wanted())?;
    number.checked_mul(scale).ok_or_else(wanted)
}

/// A time in milliseconds.
pub(super) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a number with s, m, h or d is expected, for example 30m".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "a number with s, m, h or d is expected, for example 30m".to_owned())?;
    number.checked_mul(scale).filter(|ms| *ms > 0).ok_or_else(|| "a time above zero is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_dollars("$1.50"), Ok(Money(1_500_000)));
        assert_eq!(parse_dollars("0.000001"), Ok(Money(1)));
        for wrong in ["", "-1", "nan", "inf", "a"] {
            assert!(parse_dollars(wrong).is_err(), "{wrong}");
        }
        assert_eq!(["90s", "30m", "12h", "250ms", "5"].map(parse_duration_ms), [90_000, 1_800_000, 43_200_000, 250, 5_000].map(Ok));
        assert_eq!(["512M", "8G", "2GiB", "1T", "0"].map(parse_mib), [512, 8_192, 2_048, 1_048_576, 0].map(Ok));
        for wrong in ["", "512", "G", "8K", "-1G", "18446744073709551615T"] {
            assert!(parse_mib(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0s", "m", "1y", "99999999999999999999d", "184467440737095516h"] {
            assert!(parse_duration_ms(wrong).is_err(), "{wrong}");
        }
    }
}
