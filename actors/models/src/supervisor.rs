//! The branch: its children and how they are restarted.

use std::sync::Arc;

use helix_kernel::{Address, ChildSpec, Strategy, SupervisorSpec};
use helix_messages::ModelsMsg;
use helix_ports::Provider;

use crate::Limits;
use crate::provider::{ProviderActor, ProviderMsg};
use crate::router::{Route, RouterActor, RouterArgs};

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
    /// The provider of requests that name none.
    pub default: String,
    /// Where the router is to be reached.
    pub address: Address<ModelsMsg>,
}

/// The models branch, ready to be a child of the root.
pub fn branch(args: ModelsArgs) -> SupervisorSpec {
    let route = |args: ProviderArgs| {
        // Calls are counted by the actor itself; the mailbox only has to hold a burst of them.
        let limit = args.limits.concurrency + args.limits.waiting;
        let address = Address::<ProviderMsg>::unbound(format!("provider:{}", args.provider.name()), limit);
        Route { args, address }
    };
    let routes: Vec<Route> = args.providers.into_iter().map(route).collect();
    let mut spec = SupervisorSpec::new("models", Strategy::OneForOne);
    for route in &routes {
        let args = route.args.clone();
        spec = spec.child(ChildSpec::actor(route.address.name(), &route.address, move || (ProviderActor, args.clone())));
    }
    let router = RouterArgs { routes, default: args.default };
    spec.child(ChildSpec::actor("router", &args.address, move || (RouterActor, router.clone())))
}
