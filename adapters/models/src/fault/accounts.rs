//! How services say that an account has nothing left to spend, or does not pay: no waiting mends it, and another provider may
//! serve the request. The status says little: it is 400, 402, 403 or 429.

use crate::chat::WireError;

/// Codes, and the words of messages that have none, by service. All are looked for whoever is asked: gateways and compatible
/// servers quote the services behind them. "Billing" alone is not among them: Gemini's limits of a minute say it too, and those pass.
const SPENT: [(&str, &[&str]); 8] = [
    ("openai", &["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "usage_limit_exceeded", "spend_limit"]),
    ("anthropic", &["billing_error", "enforced_spend_limit", "credit balance is too low", "specified api usage limits"]),
    ("gemini", &["billing_disabled", "prepayment credits are depleted", "monthly spending cap"]),
    ("xai", &["used all available credits"]),
    ("qwen", &["arrearage", "prepaidbilloverdue", "postpaidbilloverdue", "commoditynotpurchased", "freetieronly"]),
    ("openrouter", &["insufficient credits"]),
    ("deepseek", &["insufficient balance"]),
    ("moonshot", &["exceeded_current_quota_error"]),
];

/// True where an account is refused over its money.
pub(super) fn says_spent(error: &WireError) -> bool {
    let text = format!("{} {}", error.kind, error.message).to_ascii_lowercase();
    SPENT.iter().any(|(_, words)| words.iter().any(|word| text.contains(word)))
}
