//! Who may answer what a name in a request stands for: a provider, a group of deployments, or one model of either.

use std::sync::Arc;
use std::time::Duration;

use helix_config::{GroupConfig, ModelNames, RoutingStrategy};
use helix_protocol::{Code, Failure};

/// One model at one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deployment {
    /// Its provider's place in the directory.
    pub provider: usize,
    /// The model; empty where neither configuration nor request names one.
    pub model: String,
    /// Its share where the strategy is weighted.
    pub weight: u32,
}

/// Deployments of which any can answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tier {
    /// The group; empty for a provider on its own.
    pub group: String,
    /// In which order they are asked.
    pub strategy: RoutingStrategy,
    /// How long a session stays with the one that answered it last.
    pub affinity: Duration,
    /// Which.
    pub deployments: Vec<Deployment>,
}

/// Who may answer a request: those that were asked for, then the fallbacks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// In the order in which they are asked.
    pub tiers: Vec<Tier>,
}

/// A group with its fallbacks resolved.
#[derive(Clone, Debug)]
struct Group {
    tier: Tier,
    fallbacks: Vec<Tier>,
}

/// Every name.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// Providers with their default models.
    providers: Vec<(String, String)>,
    groups: Arc<Vec<Group>>,
    names: Arc<ModelNames>,
}

impl Directory {
    /// Over providers with their default models. A deployment or fallback that names nothing known is left out: the configuration
    /// was refused before.
    pub fn new(providers: Vec<(String, String)>, groups: &[(String, GroupConfig)], default: String) -> Self {
        let names = ModelNames::new(providers.clone(), groups.iter().map(|(name, group)| (name, group)), default);
        let mut directory = Self { providers, groups: Arc::default(), names: Arc::new(names) };
        let tier = |(name, group): &(String, GroupConfig)| Tier {
            group: name.clone(),
            strategy: group.strategy,
            affinity: Duration::from_millis(group.affinity_ms),
            deployments: group
                .deployments
                .iter()
                .filter_map(|one| {
                    let provider = directory.provider(&one.provider)?;
                    Some(Deployment { provider, model: directory.model(provider, &one.model), weight: one.weight })
                })
                .collect(),
        };
        let tiers: Vec<Tier> = groups.iter().map(tier).collect();
        let fallback = |name: &String| {
            let group = tiers.iter().find(|tier| tier.group == *name).cloned();
            group.or_else(|| directory.single(name.split_once('/').map_or((name, ""), |(name, model)| (name, model))))
        };
        let made = groups.iter().zip(&tiers).map(|((_, group), tier)| Group {
            tier: tier.clone(),
            fallbacks: group.fallbacks.iter().filter_map(fallback).collect(),
        });
        directory.groups = Arc::new(made.collect());
        directory
    }

    /// Who answers a request that names `provider` and `model`, as [`ModelNames::meant`] has it.
    pub fn plan(&self, provider: Option<&str>, model: Option<&str>) -> Result<Plan, Failure> {
        let (name, model) = self.names.meant(provider, model);
        self.named(name, model)
    }

    /// Names that a client may give as its model: groups, and `provider/model` of every deployment and default.
    pub fn offered(&self) -> Vec<String> {
        let groups = self.groups.iter().map(|group| group.tier.group.clone());
        let deployed = self.groups.iter().flat_map(|group| &group.tier.deployments);
        let deployed = deployed.map(|one| (self.providers[one.provider].0.as_str(), one.model.as_str()));
        let defaults = self.providers.iter().map(|(name, model)| (name.as_str(), model.as_str()));
        let mut models: Vec<String> = deployed
            .chain(defaults)
            .filter(|(_, model)| !model.is_empty())
            .map(|(name, model)| format!("{name}/{model}"))
            .collect();
        models.sort();
        models.dedup();
        groups.chain(models).collect()
    }

    fn named(&self, name: &str, model: Option<&str>) -> Result<Plan, Failure> {
        if let Some(group) = self.group(name) {
            let mut plan = self.within(group, model)?;
            plan.tiers.retain(|tier| !tier.deployments.is_empty());
            if plan.tiers.is_empty() {
                let failure =
                    Failure::new(Code::ModelUnavailable, format!("the group {name} has no deployment whose provider exists"));
                return Err(failure.hint("set the key of one of its providers, or describe it under `llm.providers` of helix.yaml"));
            }
            return Ok(plan);
        }
        let tier = self.single((name, model.unwrap_or_default())).ok_or_else(|| self.unknown(name))?;
        Ok(Plan { tiers: vec![tier] })
    }

    /// A group, narrowed to `model` where one is named.
    fn within(&self, group: &Group, model: Option<&str>) -> Result<Plan, Failure> {
        let mut tier = group.tier.clone();
        if let Some(model) = model {
            tier.deployments.retain(|deployment| deployment.model == model);
            if tier.deployments.is_empty() {
                let known: Vec<&str> = group.tier.deployments.iter().map(|one| one.model.as_str()).collect();
                let message = format!("the group {} has no deployment of the model {model:?}", tier.group);
                return Err(Failure::new(Code::ModelUnavailable, message)
                    .hint(format!("leave the model to the group, or name one of {}", known.join(", "))));
            }
        }
        let mut tiers = vec![tier];
        tiers.extend(group.fallbacks.iter().cloned());
        Ok(Plan { tiers })
    }

    fn single(&self, (name, model): (&str, &str)) -> Option<Tier> {
        let provider = self.provider(name)?;
        let deployment = Deployment { provider, model: self.model(provider, model), weight: 1 };
        let strategy = RoutingStrategy::default();
        Some(Tier { group: String::new(), strategy, affinity: Duration::ZERO, deployments: vec![deployment] })
    }

    fn provider(&self, name: &str) -> Option<usize> {
        self.providers.iter().position(|(known, _)| known == name)
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.tier.group == name)
    }

    fn model(&self, provider: usize, model: &str) -> String {
        if model.is_empty() { self.providers[provider].1.clone() } else { model.to_owned() }
    }

    fn unknown(&self, name: &str) -> Failure {
        let providers = self.providers.iter().map(|(name, _)| name.as_str());
        let known: Vec<&str> = providers.chain(self.groups.iter().map(|group| group.tier.group.as_str())).collect();
        let hint = match known.is_empty() {
            true => "set OPENAI_API_KEY, or describe a provider under `llm.providers` of helix.yaml".to_owned(),
            false => format!(
                "name one of {}, or describe it under `llm.providers` of helix.yaml, which a node reads when it starts",
                known.join(", ")
            ),
        };
        Failure::new(Code::ModelUnavailable, format!("there is no model provider {name:?}")).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use helix_config::DeploymentConfig;

    use super::*;

    fn deployed(provider: &str, model: &str) -> DeploymentConfig {
        DeploymentConfig { provider: provider.to_owned(), model: model.to_owned(), ..DeploymentConfig::default() }
    }

    fn directory(default: &str) -> Directory {
        let providers = [("a", "small"), ("b", "large"), ("c", "")];
        let coder = GroupConfig {
            deployments: vec![deployed("a", "big"), deployed("b", "")],
            fallbacks: vec!["spare".to_owned(), "c/tiny".to_owned()],
            ..GroupConfig::default()
        };
        let spare = GroupConfig { deployments: vec![deployed("c", "spare-model")], ..GroupConfig::default() };
        let groups = [("coder".to_owned(), coder), ("spare".to_owned(), spare)];
        let providers = providers.map(|(name, model)| (name.to_owned(), model.to_owned()));
        Directory::new(providers.to_vec(), &groups, default.to_owned())
    }

    fn plan(default: &str, provider: Option<&str>, model: Option<&str>) -> Vec<Vec<String>> {
        let directory = directory(default);
        let shown = |one: &Deployment| format!("{}/{}", directory.providers[one.provider].0, one.model);
        let plan = directory.plan(provider, model).expect("a plan");
        plan.tiers.iter().map(|tier| tier.deployments.iter().map(shown).collect()).collect()
    }

    #[test]
    fn a_group_has_its_deployments_first_and_then_its_fallbacks() {
        let whole = vec![vec!["a/big", "b/large"], vec!["c/spare-model"], vec!["c/tiny"]];
        assert_eq!(plan("a", Some("coder"), None), whole);
        assert_eq!(plan("coder", None, None), whole);
        assert_eq!(plan("a", None, Some("coder")), whole);
        assert_eq!(plan("a", Some("coder"), Some("big"))[0], ["a/big"]);
        assert_eq!(plan("a", None, Some("coder/large"))[0], ["b/large"]);
    }

    #[test]
    fn a_model_is_found_by_whoever_has_it_and_asked_of_the_default_otherwise() {
        assert_eq!(plan("a", None, None), [["a/small"]]);
        assert_eq!(plan("a", None, Some("b/other")), [["b/other"]]);
        assert_eq!(plan("a", None, Some("spare-model")), [["c/spare-model"]]);
        assert_eq!(plan("a", None, Some("vendor/unheard-of")), [["a/vendor/unheard-of"]]);
        assert_eq!(plan("a", Some("b"), None), [["b/large"]]);
    }

    #[test]
    fn a_name_nobody_has_is_refused_with_those_that_exist() {
        let failure = directory("a").plan(Some("x"), None).expect_err("unknown");
        assert_eq!(
            failure.hint,
            "name one of a, b, c, coder, spare, or describe it under `llm.providers` of helix.yaml, which a node reads when it starts"
        );
        let failure = directory("a").plan(Some("coder"), Some("x")).expect_err("not of this group");
        assert_eq!(failure.hint, "leave the model to the group, or name one of big, large");
    }

    #[test]
    fn what_is_offered_names_groups_and_models() {
        assert_eq!(directory("a").offered(), ["coder", "spare", "a/big", "a/small", "b/large", "c/spare-model"]);
    }
}
