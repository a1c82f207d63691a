//! Money for tokens, in integers.

use helix_ports::TokenPrice;
use helix_protocol::{Money, Usage};

/// A price from US dollars per million tokens. A cached price of 0 counts as `input`: few providers give cached tokens away.
pub fn price_per_million(input: f64, cached: f64, output: f64) -> TokenPrice {
    let cached = if cached > 0.0 { cached } else { input };
    let input = dollars(input);
    TokenPrice { input, cached: dollars(cached), cache_write: input, cache_write_1h: input, output: dollars(output) }
}

/// What `usage` costs, rounded up to the next millionth of a dollar.
pub fn cost(usage: &Usage, price: TokenPrice) -> Money {
    price.of(usage)
}

/// An amount of US dollars.
pub fn dollars(amount: f64) -> Money {
    Money((amount * 1_000_000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_billed_at_their_own_price_and_fractions_round_up() {
        let price = price_per_million(2.5, 0.25, 10.0);
        let usage = Usage { input_tokens: 1_000, cached_tokens: 600, output_tokens: 7, ..Usage::default() };
        // 400 × 2.5 + 600 × 0.25 + 7 × 10 millionths of a dollar.
        assert_eq!(cost(&usage, price), Money(1_220));
        assert_eq!(cost(&Usage { input_tokens: 1, ..Usage::default() }, price), Money(3));
        assert_eq!(cost(&Usage::default(), price), Money::ZERO);
    }

    #[test]
    fn what_is_kept_for_an_hour_is_billed_apart_from_what_is_kept_for_minutes() {
        let price = TokenPrice { cache_write: dollars(2.5), cache_write_1h: dollars(4.0), ..price_per_million(2.0, 0.2, 10.0) };
        let written =
            |hour| Usage { input_tokens: 1_000, cache_write_tokens: 800, cache_write_1h_tokens: hour, ..Usage::default() };
        // 200 × 2, and 800 × 2.5; of these 600 × 4 in place of 2.5.
        assert_eq!([0, 600].map(|hour| cost(&written(hour), price)), [Money(2_400), Money(3_300)]);
        assert_eq!(cost(&written(9_999), price), Money(3_600), "it is part of what was written");
    }

    #[test]
    fn without_a_cached_price_cached_tokens_cost_as_much_as_others() {
        assert_eq!(price_per_million(3.0, 0.0, 1.0).cached, Money(3_000_000));
    }
}
