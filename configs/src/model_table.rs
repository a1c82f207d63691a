//! The capability table: what each model can do and costs, as data.
//!
//! `defaults/models.yaml` is the table that comes with the program. A file of the user's (`llm.models_file`) and entries in
//! helix.yaml (`llm.models`) lie over it, in this order. An entry names models by patterns and sets what it knows; within one layer
//! the more specific pattern is applied later, so it wins where two of them speak of the same thing.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use helix_protocol::{Code, Effort, Failure, JsonOutput, ThinkingControl};
use serde::{Deserialize, Serialize};

use crate::refusal;

/// The table that comes with the program.
pub const MODEL_TABLE: &str = include_str!("../defaults/models.yaml");

/// US dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// Read, not from the cache.
    pub input: f64,
    /// Read from the cache; `input` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<f64>,
    /// Written into the cache; `input` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Written into the cache for an hour; `cache_write` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<f64>,
    /// Written.
    pub output: f64,
}

/// What every token of a long request costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongPrice {
    /// A request with more input tokens than this is a long one.
    pub above: u64,
    /// Its prices.
    pub price: ModelPrice,
}

/// What the table says of the models that two patterns name. What is absent is left as a less specific entry has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelEntry {
    /// Pattern of the provider's kind; every kind where empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Pattern of the model's name: `*` is any text, `?` one character; case does not matter.
    pub model: String,
    /// Calls tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Can be made to call some tool, or a named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_tools: Option<bool>,
    /// Calls several tools at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tools: Option<bool>,
    /// Streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<bool>,
    /// Takes pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
    /// Takes temperature and its like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<bool>,
    /// What it can be held to in the text of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_output: Option<JsonOutput>,
    /// How its thinking is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<ThinkingControl>,
    /// The efforts that it knows, least first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efforts: Option<Vec<Effort>>,
    /// Least tokens of a thinking budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_budget: Option<u32>,
    /// Takes cache markers in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_markers: Option<bool>,
    /// A prefix shorter than this is not cached, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_least: Option<u32>,
    /// Tokens of a whole request, answer included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// Most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Most tokens that a picture counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tokens: Option<u64>,
    /// A bound on `context_tokens` whatever a more specific entry says: a service that passes others' models on
    /// takes less than they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_context_tokens: Option<u64>,
    /// The same bound on `output_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_output_tokens: Option<u64>,
    /// US dollars per million tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<ModelPrice>,
    /// The same of long requests, where they cost more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_price: Option<LongPrice>,
}

impl ModelEntry {
    fn covers(&self, kind: &str, model: &str) -> bool {
        (self.provider.is_empty() || matches(&self.provider, kind)) && matches(&self.model, model)
    }

    /// Sets what `over` knows.
    fn lay(&mut self, over: &Self) {
        macro_rules! take {
            ($($field:ident),*) => { $( if over.$field.is_some() { self.$field.clone_from(&over.$field); } )* };
        }
        take!(tools, forced_tools, parallel_tools, streaming, images, sampling, json_output, thinking, efforts);
        take!(
            least_budget,
            cache_markers,
            cache_least,
            context_tokens,
            output_tokens,
            image_tokens,
            most_context_tokens,
            most_output_tokens,
            long_price
        );
        if over.price.is_some() {
            self.price = over.price;
            // A new price says nothing about what long requests cost by the old one.
            self.long_price = over.long_price;
        }
    }

    fn specificity(&self) -> (usize, usize) {
        let literal = |pattern: &str| pattern.chars().filter(|c| !matches!(c, '*' | '?')).count();
        (literal(&self.model), literal(&self.provider))
    }
}

/// Entries in the order in which they are laid over one another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelTable {
    layers: Vec<Vec<ModelEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsFile {
    models: Vec<ModelEntry>,
}

impl ModelTable {
    /// The table that comes with the program.
    pub fn built_in() -> &'static Self {
        static TABLE: OnceLock<ModelTable> = OnceLock::new();
        TABLE.get_or_init(|| {
            let entries = entries(MODEL_TABLE, "models.yaml").expect("a test reads the table that comes with the program");
            Self { layers: vec![sorted(entries)] }
        })
    }

    /// This table with a layer over it.
    pub fn with(mut self, layer: Vec<ModelEntry>) -> Self {
        if !layer.is_empty() {
            self.layers.push(sorted(layer));
        }
        self
    }

    /// What is known of `model` at a provider of the kind `kind`, its sizes within their bounds. Its patterns are empty.
    pub fn of(&self, kind: &str, model: &str) -> ModelEntry {
        let mut found = ModelEntry::default();
        self.layers.iter().flatten().filter(|entry| entry.covers(kind, model)).for_each(|entry| found.lay(entry));
        let within = |size: Option<u64>, most: Option<u64>| size.into_iter().chain(most).min();
        found.context_tokens = within(found.context_tokens, found.most_context_tokens);
        found.output_tokens = within(found.output_tokens, found.most_output_tokens);
        found
    }

    /// True where an entry says of this model, and not of every one, how much it takes.
    pub fn knows_size(&self, kind: &str, model: &str) -> bool {
        let mut of_it = self.layers.iter().flatten().filter(|entry| entry.model != "*" && entry.covers(kind, model));
        of_it.any(|entry| entry.context_tokens.is_some())
    }
}

/// Reads a models file. Refused with `invalid_config`, naming line and key.
pub(crate) fn entries(text: &str, source: &str) -> Result<Vec<ModelEntry>, Failure> {
    let file: ModelsFile = refusal::parse(text, source)?;
    check(&file.models, source)?;
    Ok(file.models)
}

/// Reads a models file from the disk.
pub(crate) fn read(path: &Path) -> Result<Vec<ModelEntry>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Code::InvalidConfig, format!("llm.models_file names {}, which does not exist", path.display()))
                .hint("correct the path; docs/models.md says what the file holds")
        }
        _ => Failure::io(path.display(), &error),
    })?;
    entries(&text, &path.display().to_string())
}

/// Refuses entries that name nothing, contradict themselves, or name the same models twice.
pub(crate) fn check(entries: &[ModelEntry], source: &str) -> Result<(), Failure> {
    let refuse = |entry: &ModelEntry, what: &str, hint: &str| {
        Err(Failure::new(Code::InvalidConfig, format!("{source}: the entry of the models {:?} {what}", entry.model)).hint(hint))
    };
    let mut seen = BTreeSet::new();
    for entry in entries {
        if entry.model.is_empty() {
            return refuse(entry, "has no pattern", "name them as `model`, for example claude-*");
        }
        if !seen.insert((entry.provider.to_lowercase(), entry.model.to_lowercase())) {
            return refuse(entry, "is there twice", "put what both say into one");
        }
        if entry.efforts.as_ref().is_some_and(|efforts| !efforts.is_sorted()) {
            return refuse(
                entry,
                "has efforts out of order",
                "write them from the least to the most: minimal low medium high xhigh max",
            );
        }
        let prices = entry.price.iter().chain(entry.long_price.iter().map(|long| &long.price));
        let amounts =
            prices.flat_map(|price| [Some(price.input), price.cached, price.cache_write, price.cache_write_1h, Some(price.output)]);
        if amounts.flatten().any(|dollars| !dollars.is_finite() || dollars < 0.0) {
            return refuse(entry, "has a price that is none", "prices are US dollars per million tokens, not negative");
        }
        let sizes =
            [entry.context_tokens, entry.output_tokens, entry.image_tokens, entry.most_context_tokens, entry.most_output_tokens];
        if sizes.contains(&Some(0)) {
            return refuse(entry, "has a size of 0", "leave a size out where it is not known");
        }
    }
    Ok(())
}

fn sorted(mut entries: Vec<ModelEntry>) -> Vec<ModelEntry> {
    entries.sort_by_key(ModelEntry::specificity);
    entries
}

/// Whether `pattern` covers the whole of `text`. Linear in memory, and quadratic in time at worst.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(c) if *c == '?' || c.cmp(&text[from]) == Ordering::Equal => {
                at += 1;
                from += 1;
            }
            _ => match star {
                // The last star takes one character more.
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    from = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_whole_names_and_ignore_case() {
        for (pattern, text, expected) in [
            ("claude-*", "claude-opus-5", true),
            ("claude-*", "anthropic/claude-opus-5", false),
            ("*claude-opus-4?5*", "anthropic/Claude-Opus-4.5:beta", true),
            ("gpt-5", "gpt-5.1", false),
            ("*a*b", "aXXbYYb", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_table_that_comes_with_the_program_can_be_read() {
        let entries = entries(MODEL_TABLE, "models.yaml").expect("it is right");
        assert!(entries.len() > 40, "{}", entries.len());
    }

    #[test]
    fn the_newest_claudes_think_always_refuse_sampling_and_cannot_be_forced() {
        let table = ModelTable::built_in();
        let newest = table.of("anthropic", "claude-opus-5-5");
        assert_eq!(
            (newest.thinking, newest.forced_tools, newest.sampling),
            (Some(ThinkingControl::AlwaysEffort), Some(false), Some(false))
        );
        assert_eq!(newest.cache_markers, Some(true));
        let older = table.of("anthropic", "claude-sonnet-4-5-20250929");
        assert_eq!((older.thinking, older.forced_tools, older.sampling), (Some(ThinkingControl::Budget), Some(true), Some(true)));
        assert_eq!(older.context_tokens, Some(200_000));
    }

    #[test]
    fn models_from_before_schemas_are_held_to_what_they_can_be() {
        let table = ModelTable::built_in();
        for (kind, model, expected) in [
            ("anthropic", "claude-3-7-sonnet-latest", JsonOutput::None),
            ("anthropic", "claude-sonnet-4-20250514", JsonOutput::None),
            ("anthropic", "claude-opus-4-0", JsonOutput::None),
            ("anthropic", "claude-sonnet-4-5-20250929", JsonOutput::Schema),
            ("anthropic", "claude-opus-5-5", JsonOutput::Schema),
            ("openai", "gpt-4", JsonOutput::None),
            ("openai", "gpt-4-turbo", JsonOutput::Object),
            ("openai", "gpt-4o-2024-05-13", JsonOutput::Object),
            ("openai", "gpt-4o", JsonOutput::Schema),
            ("ollama", "qwen3", JsonOutput::Schema),
        ] {
            assert_eq!(table.of(kind, model).json_output, Some(expected), "{model}");
        }
    }

    #[test]
    fn what_a_provider_takes_holds_for_every_model_that_it_passes_on() {
        let table = ModelTable::built_in();
        let sizes = |table: &ModelTable, kind: &str, model: &str| {
            let found = table.of(kind, model);
            (found.context_tokens, found.output_tokens)
        };
        let own = sizes(table, "openai", "gpt-6.1-sol");
        assert!(own.0 > Some(128_000) && own.1 > Some(16_000), "{own:?}");
        for (model, context, output) in [
            ("gpt-6.1-sol", 128_000, 16_000),
            // What they write at their maker's is not known here.
            ("claude-opus-5-5", 128_000, 8_192),
            ("gemini-4-argon", 128_000, 8_192),
            ("nobody-knows-it", 64_000, 8_192),
        ] {
            assert_eq!(sizes(table, "copilot", model), (Some(context), Some(output)), "{model}");
        }
        // Who knows better raises the bound, or names a smaller model; neither has to be a rule of the program.
        let mine = "models:\n- {provider: copilot, model: \"*\", most_context_tokens: 200000}\n- {model: \"gpt-4o*\", context_tokens: 64000}\n";
        let table = table.clone().with(entries(mine, "mine").expect("right"));
        assert_eq!(sizes(&table, "copilot", "gpt-6.1-sol"), (Some(200_000), Some(16_000)));
        assert_eq!(sizes(&table, "copilot", "gpt-4o").0, Some(64_000));
    }

    #[test]
    fn a_request_of_two_million_tokens_has_a_model_that_takes_it() {
        assert_eq!(ModelTable::built_in().of("gemini", "gemini-1.5-pro-002").context_tokens, Some(2_097_152));
        let known = |kind: &str, model: &str| ModelTable::built_in().knows_size(kind, model);
        assert_eq!([known("openai", "gpt-4o"), known("openai_compatible", "mine"), known("ollama", "mine")], [true, false, false]);
    }

    #[test]
    fn a_model_nobody_knows_is_given_no_price() {
        let found = ModelTable::built_in().of("openai_compatible", "mine");
        assert_eq!((found.price, found.context_tokens, found.output_tokens), (None, Some(128_000), Some(4_096)));
    }

    #[test]
    fn a_picture_counts_as_its_model_has_it_and_much_where_nobody_knows() {
        let tokens = |kind: &str, model: &str| ModelTable::built_in().of(kind, model).image_tokens;
        for (kind, model, expected) in [
            // 2,833 and eight tiles of 5,667.
            ("openai", "gpt-4o-mini", 48_169),
            ("openrouter", "openai/gpt-4o-mini-2024-07-18", 48_169),
            ("openai", "gpt-4o", 1_445),
            ("anthropic", "claude-opus-5-5", 4_784),
            ("openai_compatible", "mine", 16_384),
        ] {
            assert_eq!(tokens(kind, model), Some(expected), "{model}");
        }
    }

    #[test]
    fn an_hour_in_the_cache_of_anthropic_costs_twice_the_input() {
        let entries = entries(MODEL_TABLE, "models.yaml").expect("it is right");
        let prices = entries.iter().filter(|entry| entry.provider == "anthropic");
        let prices = prices.flat_map(|entry| entry.price.iter().chain(entry.long_price.iter().map(|long| &long.price)));
        let hours: Vec<(f64, Option<f64>)> = prices.map(|price| (price.input, price.cache_write_1h)).collect();
        assert!(hours.len() > 20, "{hours:?}");
        assert!(hours.iter().all(|(input, hour)| *hour == Some(2.0 * input)), "{hours:?}");
    }

    #[test]
    fn a_server_of_ones_own_is_free_whatever_model_it_serves_and_a_price_nobody_knows_is_none() {
        let price = |kind: &str, model: &str| ModelTable::built_in().of(kind, model).price;
        let free = Some(ModelPrice { input: 0.0, cached: None, cache_write: None, cache_write_1h: None, output: 0.0 });
        for model in ["qwen3", "gpt-4o", "claude-opus-5-5", "mine"] {
            assert_eq!([price("ollama", model), price("llama_cpp", model)], [free, free], "{model}");
            assert_eq!(price("openrouter", model), None, "{model}");
        }
        assert_eq!(price("openai_compatible", "mine"), None);
    }

    #[test]
    fn a_users_entry_wins_and_leaves_what_it_does_not_name() {
        let mine =
            entries("models:\n- {model: \"claude-*\", output_tokens: 9, price: {input: 1, output: 2}}\n", "mine").expect("right");
        let found = ModelTable::built_in().clone().with(mine).of("anthropic", "claude-opus-5-5");
        assert_eq!(found.output_tokens, Some(9));
        assert_eq!(
            found.price,
            Some(ModelPrice { input: 1.0, cached: None, cache_write: None, cache_write_1h: None, output: 2.0 })
        );
        assert_eq!(found.thinking, Some(ThinkingControl::AlwaysEffort));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_and_so_is_what_cannot_be() {
        let failure = entries("models:\n- {model: a, image: true}\n", "mine.yaml").expect_err("unknown");
        assert_eq!(failure.hint, "did you mean models[0].images?");
        for text in [
            "- {images: true}",
            "- {model: a}\n- {model: A}",
            "- {model: a, efforts: [high, low]}",
            "- {model: a, price: {input: -1, output: 0}}",
            "- {model: a, context_tokens: 0}",
            "- {model: a, most_output_tokens: 0}",
        ] {
            assert_eq!(entries(&format!("models:\n{text}\n"), "mine").expect_err(text).code, Code::InvalidConfig);
        }
    }
}
