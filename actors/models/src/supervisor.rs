//! The branch: its children and how they are restarted.

use std::sync::Arc;
use std::time::Duration;

use helix_config::GroupConfig;
use helix_kernel::{Address, Backoff, ChildSpec, Intensity, Strategy, SupervisorSpec};
use helix_messages::{ModelsMsg, Records};
use helix_ports::Provider;

use crate::Limits;
use crate::calls::Gate;
use crate::directory::Directory;
use crate::pool::{Pool, Route};
use crate::provider::{ProviderActor, ProviderMsg};
use crate::router::{RouterActor, RouterArgs};

/// A provider that fails again and again is put off ever longer, by itself alone.
const PUT_OFF: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(60) };
/// However often one of them fails, the router and the others go on.
const EVER: Intensity = Intensity { restarts: u32::MAX, period: Duration::from_secs(60) };

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
    let mut providers = SupervisorSpec::new("providers", Strategy::OneForOne).intensity(EVER);
    for route in &routes {
        let (args, gate) = (route.args.clone(), Arc::clone(&route.gate));
        let start = move || (ProviderActor, (args.clone(), Arc::clone(&gate)));
        providers = providers.child(ChildSpec::actor(route.address.name(), &route.address, start).backoff(PUT_OFF));
    }
    let names = routes.iter().map(|route| (route.args.provider.name().to_owned(), route.args.model.clone())).collect();
    let directory = Directory::new(names, &args.groups, args.default);
    let router = RouterArgs { pool: Arc::new(Pool::new(routes, directory)), records: args.records };
    let router = ChildSpec::actor("router", &args.address, move || (RouterActor, router.clone()));
    SupervisorSpec::new("models", Strategy::OneForOne).child(ChildSpec::supervisor(providers)).child(router)
}
