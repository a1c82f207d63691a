//! Numbers as clients write them: null is none, and 50.0 is 50. An error names the field, for a 400.

use serde_json::Value;

/// Any number.
pub(crate) fn number(said: Option<&Value>, field: &str) -> Result<Option<f64>, String> {
    match said.filter(|said| !said.is_null()) {
        None => Ok(None),
        Some(said) => said.as_f64().map(Some).ok_or_else(|| format!("`{field}` is {said}, which is no number")),
    }
}

/// A whole number.
pub(crate) fn whole(said: Option<&Value>, field: &str) -> Result<Option<i64>, String> {
    match number(said, field)? {
        Some(number) if number.fract() != 0.0 => Err(format!("`{field}` is {number}, which is no whole number")),
        // What is beyond either end is that end.
        number => Ok(number.map(|number| number as i64)),
    }
}

/// A whole number above 0; one that is too large is the largest.
pub(crate) fn positive(said: Option<&Value>, field: &str) -> Result<Option<u32>, String> {
    match whole(said, field)? {
        Some(number) if number <= 0 => Err(format!("`{field}` is {number}, which is not above 0")),
        number => Ok(number.map(clamped)),
    }
}

/// A whole number that limits something; 0 and what is below it are no limit.
pub(crate) fn limit(said: Option<&Value>, field: &str) -> Result<Option<u32>, String> {
    Ok(whole(said, field)?.filter(|number| *number > 0).map(clamped))
}

fn clamped(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_read_however_it_is_written_and_what_is_none_is_refused_by_name() {
        for (said, expected) in [
            (None, Ok(None)),
            (Some(json!(null)), Ok(None)),
            (Some(json!(50)), Ok(Some(50))),
            (Some(json!(50.0)), Ok(Some(50))),
            (Some(json!(1e12)), Ok(Some(u32::MAX))),
            (Some(json!(0)), Err("`n` is 0, which is not above 0")),
            (Some(json!(-1)), Err("`n` is -1, which is not above 0")),
            (Some(json!(0.5)), Err("`n` is 0.5, which is no whole number")),
            (Some(json!("50")), Err("`n` is \"50\", which is no number")),
        ] {
            assert_eq!(positive(said.as_ref(), "n"), expected.map_err(str::to_owned), "{said:?}");
        }
        assert_eq!((limit(Some(&json!(-1)), "n"), limit(Some(&json!(2.0)), "n")), (Ok(None), Ok(Some(2))));
    }
}
