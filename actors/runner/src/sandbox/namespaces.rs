//! A user, mount, IPC and, without a grant, network namespace for everything in the sandbox.
//!
//! Ids stay what they are. A user who is not root maps the own id alone. Root maps all ids, so that archives unpack and services
//! run under users of their own as root expects; only the parent may write such a map, so the sandbox asks the worker for it.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::JoinHandle;

use helix_protocol::Network;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::process::{DumpableBehavior, Gid, Uid, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use rustix::thread::{capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities};

/// What root keeps in namespaces of its own: owning, reading and running as the users of the machine, and low ports of its own
/// network. Everything outside what is writable is mounted read-only, so none of these reaches it.
const KEPT_BY_ROOT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// A thread that asks one thing of the kernel needs little.
const STACK: usize = 64 * 1024;

/// The loopback of a new network namespace on its way up, beside whatever else is made. The kernel takes one such request at a
/// time, also from other namespaces and while it takes an old one down, so it may be a while.
#[must_use = "commands need the loopback, and nothing may run beside them"]
pub struct Loopback(Option<JoinHandle<io::Result<()>>>);

impl Loopback {
    fn raise(network: Network) -> io::Result<Self> {
        if network != Network::None {
            return Ok(Self(None));
        }
        std::thread::Builder::new().stack_size(STACK).spawn(raise_loopback).map(|raising| Self(Some(raising)))
    }

    /// Waits until it is up.
    pub fn wait(self) -> Result<(), String> {
        let raised = self.0.map_or(Ok(()), |raising| raising.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())));
        raised.map_err(|error| format!("the loopback of a new network namespace does not come up: {error}"))
    }
}

/// Leaves the machine's namespaces. Root has `ask_for_ids`, which returns once the parent has written the maps.
pub fn leave(network: Network, ask_for_ids: impl FnOnce() -> io::Result<()>) -> Result<Loopback, String> {
    let (uid, gid) = (geteuid(), getegid());
    enter(network, || if uid.is_root() { ask_for_ids() } else { map_own_id(uid, gid) })
}

/// As `leave`, with the own id alone whoever this is: nobody has to be asked.
pub fn leave_alone(network: Network) -> Result<Loopback, String> {
    let (uid, gid) = (geteuid(), getegid());
    enter(network, || map_own_id(uid, gid))
}

fn enter(network: Network, map_ids: impl FnOnce() -> io::Result<()>) -> Result<Loopback, String> {
    let mut flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
    if network == Network::None {
        flags |= UnshareFlags::NEWNET;
    }
    unshare(flags).map_err(|error| format!("new namespaces are refused: {error}"))?;
    // Entering one hides a process from those who look for what a worker started; they must find it at any moment.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|error| format!("the process cannot be made visible: {error}"))?;
    let loopback = Loopback::raise(network).map_err(|error| format!("no thread for the loopback: {error}"))?;
    map_ids().map_err(|error| format!("ids cannot be mapped in a new user namespace: {error}"))?;
    Ok(loopback)
}

fn map_own_id(uid: Uid, gid: Gid) -> io::Result<()> {
    let write = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1", uid = uid.as_raw()))?;
    write("gid_map", format!("{gid} {gid} 1", gid = gid.as_raw()))
}

#[allow(unsafe_code)]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the table of descriptors is not among what is unshared, and nothing else of it is unsafe.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Writes the id maps of a child that is in a new user namespace: every id of this namespace stays itself. The worker's side.
pub fn map_every_id(child: u32) -> io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        let ours = fs::read_to_string(format!("/proc/self/{map}"))?;
        let lines = ours.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (inside, _, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some(format!("{inside} {inside} {count}\n"))
        });
        fs::write(Path::new("/proc").join(child.to_string()).join(map), lines.collect::<String>())?;
    }
    Ok(())
}

/// RTM_NEWLINK for interface 1, which is the loopback of every network namespace: flags IFF_UP, and an acknowledgement wanted.
fn raise_loopback() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 5;
    const UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32_u32.to_ne_bytes());
    message.extend_from_slice(&NEW_LINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // Sequence and port.
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    // Family, padding and device type.
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&1_i32.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    // No protocol named: routes and links are the first.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // Behind the header an acknowledgement has the error, negative, or zero.
    let error = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Gives capabilities up for good, except those that root keeps in namespaces of its own.
pub fn give_up_capabilities(namespaces: bool) -> Result<(), String> {
    let keep = if namespaces && geteuid().is_root() { KEPT_BY_ROOT } else { CapabilitySet::empty() };
    let failed = |error| format!("capabilities cannot be given up: {error}");
    let held = capabilities(None).map_err(failed)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if !keep.contains(one) && remove_capability_from_bounding_set(one).is_err() {
                // The kernel knows no more than these.
                break;
            }
        }
    }
    clear_ambient_capability_set().map_err(failed)?;
    let kept = held.permitted & keep;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() }).map_err(failed)
}
