//! The branch: its children and how they are restarted.

use std::sync::Arc;

use helix_config::GroupConfig;
use helix_kernel::{Address, ChildSpec, Strategy, SupervisorSpec};
use helix_messages::{ModelsMsg, Records};
use helix_ports::Provider;

use crate::Limits;
use crate::calls::Gate;
use crate::directory::Directory;
use crate::pool::{Pool, Route};
use crate::provider::{ProviderActor, ProviderMsg};
use crate::router::{RouterActor, RouterArgs};

/// One provider.
#[derive(Clone)]
pub struct ProviderArgs {
    /// Who answers.
    pub provider: Arc<dyn Provider>,
    /// Where it is, for listings; without credentials.
    pub base_url: String,
    /// The model of requests that name none.
    pub model: String,
    /// How much is asked of it.
    pub limits: Limits,
}

/// What the branch is made of.
pub struct ModelsArgs {
    /// Every provider; names differ.
    pub providers: Vec<ProviderArgs>,
    /// Groups of deployments by name; names differ from those of providers.
    pub groups: Vec<(String, GroupConfig)>,
    /// The provider or group of requests that name none.
    pub default: String,
    /// Where calls are written down; `None` where nobody wants to know.
    pub records: Option<Records>,
    /// Where the router is to be reached.
    pub address: Address<ModelsMsg>,
}

/// The models branch, ready to be a child of the root.
pub fn branch(args: ModelsArgs) -> SupervisorSpec {
    let route = |args: ProviderArgs| {
        // Calls are counted by the actor itself; the mailbox only has to hold a burst of them.
        let limit = args.limits.concurrency + args.limits.waiting;
        let address = Address::<ProviderMsg>::unbound(format!("provider:{}", args.provider.name()), limit);
        let gate = Arc::new(Gate::new(Arc::clone(&args.provider), args.limits));
        Route { args, address, gate }
    };
    let routes: Vec<Route> = args.providers.into_iter().map(route).collect();
    let mut spec = SupervisorSpec::new("models", Strategy::OneForOne);
    for route in &routes {
        let (args, gate) = (route.args.clone(), Arc::clone(&route.gate));
        let start = move || (ProviderActor, (args.clone(), Arc::clone(&gate)));
        spec = spec.child(ChildSpec::actor(route.address.name(), &route.address, start));
    }
    let names = routes.iter().map(|route| (route.args.provider.name().to_owned(), route.args.model.clone())).collect();
    let directory = Directory::new(names, &args.groups, args.default);
    let router = RouterArgs { pool: Arc::new(Pool::new(routes, directory)), records: args.records };
    spec.child(ChildSpec::actor("router", &args.address, move || (RouterActor, router.clone())))
}
