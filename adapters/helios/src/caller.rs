//! What a command needs to know of where it was typed.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io;

use rustix::termios::{isatty, tcgetwinsize};

use crate::protocol::{Run, Text, is_environment_that_matters};

/// These arguments with this process's folder, environment and terminal.
pub fn caller(argv: impl Iterator<Item = OsString>) -> io::Result<Run> {
    let argv: Vec<Text> = argv.map(|argument| Text::from(argument.as_os_str())).collect();
    // A command that runs other programs for the caller runs them in the caller's environment.
    let whole = argv.first().is_some_and(|verb| verb.as_bytes() == b"bisect");
    let env: BTreeMap<String, Text> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, Text::from(value.as_os_str()))))
        .filter(|(name, _)| whole || is_environment_that_matters(name))
        .collect();
    let terminal = isatty(io::stdout());
    let columns = if terminal { tcgetwinsize(io::stdout()).map_or(80, |size| size.ws_col) } else { 0 };
    let plain = env.get("NO_COLOR").is_some_and(|value| !value.as_bytes().is_empty());
    let cwd = Text::from(env::current_dir()?.as_os_str());
    Ok(Run { argv, cwd, env, columns, colour: terminal && !plain, offset_minutes: Some(offset_minutes()) })
}

/// Minutes east of UTC here and now.
#[allow(unsafe_code)]
pub fn offset_minutes() -> i16 {
    unsafe extern "C" {
        /// Looks whether the machine's time zone has changed since it was last asked for.
        fn tzset();
    }
    // SAFETY: `time` is given no place to write to; `localtime_r` reads one number and writes one struct, both of which live on
    // this stack; it shares a lock with `tzset`; this process changes no environment variable while it runs.
    let seconds = unsafe {
        tzset();
        let now = libc::time(std::ptr::null_mut());
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const now, &raw mut local).is_null() { 0 } else { local.tm_gmtoff }
    };
    i16::try_from(seconds / 60).unwrap_or(0)
}
