//! What a name in a request stands for: one table for whoever asks and for whoever is asked, so that both mean the same model.

use crate::{DeploymentConfig, GroupConfig};

/// Providers and groups, with the models that each has.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelNames {
    /// With its default model.
    providers: Vec<(String, String)>,
    groups: Vec<(String, Vec<String>)>,
    default: String,
}

impl ModelNames {
    /// Over providers with their default models. A deployment whose provider does not exist is none. `default`
    /// answers where nobody is named.
    pub fn new<'a>(
        providers: Vec<(String, String)>,
        groups: impl IntoIterator<Item = (&'a String, &'a GroupConfig)>,
        default: String,
    ) -> Self {
        let own = |one: &DeploymentConfig| providers.iter().find(|(name, _)| *name == one.provider).map(|(_, model)| model.clone());
        let model = |one: &DeploymentConfig| own(one).map(|own| if one.model.is_empty() { own } else { one.model.clone() });
        let models = |group: &GroupConfig| group.deployments.iter().filter_map(model).collect();
        let groups = groups.into_iter().map(|(name, group)| (name.clone(), models(group))).collect();
        Self { providers, groups, default }
    }

    /// Which provider or group is asked, and for which model where it is not left to it.
    ///
    /// A provider or group that is named stands. Where only a model is named, it may be a group's name, `provider/model` or
    /// `group/model`, or a model that some group or provider has; any other is asked of the default.
    pub fn meant<'a>(&'a self, provider: Option<&'a str>, model: Option<&'a str>) -> (&'a str, Option<&'a str>) {
        let model = model.filter(|model| !model.is_empty());
        match (provider, model) {
            (Some(name), model) => (name, model),
            (None, None) => (&self.default, None),
            (None, Some(group)) if self.group(group).is_some() => (group, None),
            (None, Some(model)) => match model.split_once('/').filter(|(name, _)| self.knows(name)) {
                Some((name, rest)) => (name, Some(rest)),
                None => (self.owner(model), Some(model)),
            },
        }
    }

    /// Who is asked for a model that is named alone: the default where it has it, else whoever has it, else
    /// the default all the same.
    fn owner(&self, model: &str) -> &str {
        let has = |models: &[String]| models.iter().any(|own| own == model);
        let is_own = || self.providers.iter().any(|(name, own)| *name == self.default && own == model);
        if self.group(&self.default).is_some_and(has) || is_own() {
            return &self.default;
        }
        let group = self.groups.iter().find(|(_, models)| has(models)).map(|(name, _)| name);
        let provider = || self.providers.iter().find(|(_, own)| own == model).map(|(name, _)| name);
        group.or_else(provider).unwrap_or(&self.default)
    }

    fn group(&self, name: &str) -> Option<&[String]> {
        self.groups.iter().find(|(known, _)| known == name).map(|(_, models)| models.as_slice())
    }

    fn knows(&self, name: &str) -> bool {
        self.providers.iter().any(|(known, _)| known == name) || self.group(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(default: &str) -> ModelNames {
        let deployed = |provider: &str, model: &str| DeploymentConfig {
            provider: provider.to_owned(),
            model: model.to_owned(),
            ..DeploymentConfig::default()
        };
        let group = |deployments: Vec<DeploymentConfig>| GroupConfig { deployments, ..GroupConfig::default() };
        let coder = group(vec![deployed("a", "big"), deployed("b", ""), deployed("nobody", "lost")]);
        let spare = group(vec![deployed("c", "spare-model"), deployed("a", "big")]);
        let providers = [("a", "small"), ("b", "large"), ("c", "")].map(|(name, model)| (name.to_owned(), model.to_owned()));
        let groups = [("coder".to_owned(), coder), ("spare".to_owned(), spare)];
        ModelNames::new(providers.to_vec(), groups.iter().map(|(name, group)| (name, group)), default.to_owned())
    }

    #[test]
    fn a_name_stands_for_one_provider_or_group_and_one_of_its_models_or_its_own() {
        for (default, provider, model, meant) in [
            ("a", None, None, ("a", None)),
            ("a", None, Some(""), ("a", None)),
            ("coder", None, None, ("coder", None)),
            ("a", Some("b"), Some(""), ("b", None)),
            ("a", Some("b"), Some("x/y"), ("b", Some("x/y"))),
            ("a", None, Some("coder"), ("coder", None)),
            ("a", None, Some("coder/large"), ("coder", Some("large"))),
            ("a", None, Some("b/other"), ("b", Some("other"))),
            ("a", None, Some("vendor/unheard-of"), ("a", Some("vendor/unheard-of"))),
            ("a", None, Some("spare-model"), ("spare", Some("spare-model"))),
            ("a", None, Some("large"), ("coder", Some("large"))),
            ("a", None, Some("small"), ("a", Some("small"))),
            ("a", None, Some("lost"), ("a", Some("lost"))),
            // Two groups have it: the default one where it is one of them, else the first.
            ("spare", None, Some("big"), ("spare", Some("big"))),
            ("b", None, Some("big"), ("coder", Some("big"))),
            // A group and the default provider have it.
            ("b", None, Some("large"), ("b", Some("large"))),
        ] {
            assert_eq!(names(default).meant(provider, model), meant, "{default} {provider:?} {model:?}");
        }
    }
}
