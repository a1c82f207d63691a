//! seccomp: system calls that nothing in a workspace needs and that reach past it, and the kinds of sockets that may be made.
//!
//! What is refused is refused with an error, so that programs which only try go on. A program of another architecture (32 bits) is
//! killed: its calls have other numbers.

use std::collections::BTreeMap;

use helix_protocol::{Confinement, Network};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Compare, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Refused whatever their arguments are.
const REFUSED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // What is seen of the machine's files.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_setns,
    // Keys of other processes of the same user.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Large parts of the kernel that were ways out of it before. What io_uring does is not filtered by call.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine itself.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// Only where the architecture has them.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Puts text into a terminal's input, and what else the console is told.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541C];
/// The flag for a user namespace: in one, a process has every capability again.
const NEW_USER: u64 = 0x1000_0000;

/// Filters, compiled.
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Those of a confinement.
    pub fn of(confinement: Confinement) -> Result<Self, String> {
        let not_permitted = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        // The C library asks with `clone3` first and knows what to do without; its flags cannot be seen by a filter.
        let not_there = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let mut programs = vec![compile(refused(confinement)?, not_permitted)?];
        programs.push(compile(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), not_there)?);
        #[cfg(target_arch = "x86_64")]
        programs.push(without_x32());
        Ok(Self(programs))
    }

    /// Puts them on this process and everything it will start, for good.
    pub fn install(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|program| apply_filter(program).map_err(|error| format!("seccomp: {error}")))
    }
}

fn refused(confinement: Confinement) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let families = families(confinement);
    let others: Result<Vec<_>, String> = families.iter().map(|family| condition(0, Compare::Ne, *family)).collect();
    rules.insert(libc::SYS_socket, vec![rule(others?)?]);
    let ioctls = TERMINAL_INPUT.map(|request| rule(vec![condition(1, Compare::Eq, request)?]));
    rules.insert(libc::SYS_ioctl, ioctls.into_iter().collect::<Result<_, _>>()?);
    // Limits of another process end it as well as a signal does. Which process is meant is the first
    // argument; 0 is the caller itself.
    rules.insert(libc::SYS_prlimit64, vec![rule(vec![condition(0, Compare::Ne, 0)?])?]);
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        rules.insert(call, vec![rule(vec![condition(0, Compare::MaskedEq(NEW_USER), NEW_USER)?])?]);
    }
    Ok(rules)
}

/// The families of sockets that may be made. Pairs of connected ones always may.
fn families(confinement: Confinement) -> Vec<u64> {
    let mut families = vec![libc::AF_NETLINK];
    // Without either, a named socket of some service would be a way out: a container engine's, an agent's of keys, the node's own.
    if confinement.namespaces || confinement.landlock >= super::LANDLOCK_WITH_SOCKETS {
        families.push(libc::AF_UNIX);
    }
    if confinement.namespaces || confinement.network == Network::Host {
        families.extend([libc::AF_INET, libc::AF_INET6]);
    }
    families.into_iter().map(|family| u64::from(family.cast_unsigned())).collect()
}

fn condition(argument: u8, compare: Compare, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, Width::Dword, compare, value).map_err(|error| format!("seccomp: {error}"))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| format!("seccomp: {error}"))
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, refusal: SeccompAction) -> Result<BpfProgram, String> {
    let here = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| format!("seccomp: {error}"))?;
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, here)
        .and_then(TryInto::try_into)
        .map_err(|error| format!("seccomp: {error}"))
}

/// The same calls have a second set of numbers, which no rule above names.
#[cfg(target_arch = "x86_64")]
fn without_x32() -> BpfProgram {
    use seccompiler::sock_filter;
    const LOAD: u16 = 0x20;
    const JUMP_IF_NOT_BELOW: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    const REFUSE: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_NOT_BELOW, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: REFUSE | libc::ENOSYS.cast_unsigned() },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use helix_protocol::Isolation;

    use super::*;

    #[test]
    fn sockets_that_reach_outside_are_made_only_where_something_else_holds_them_in() {
        let inet = [libc::AF_INET, libc::AF_INET6].map(|family| u64::from(family.cast_unsigned()));
        let local = u64::from(libc::AF_UNIX.cast_unsigned());
        for (landlock, namespaces, network, has_inet, has_local) in [
            (7, true, Network::None, true, true),
            (7, false, Network::None, false, false),
            (7, false, Network::Host, true, false),
            (9, false, Network::None, false, true),
            (0, true, Network::Host, true, true),
        ] {
            let confinement = Confinement { isolation: Isolation::Workspace, network, landlock, seccomp: true, namespaces };
            let families = families(confinement);
            assert_eq!(inet.iter().all(|family| families.contains(family)), has_inet, "{confinement}");
            assert_eq!(families.contains(&local), has_local, "{confinement}");
            assert!(Filters::of(confinement).is_ok_and(|filters| filters.0.iter().all(|program| program.len() < 4096)));
        }
    }
}
