//! The POSIX scripts that are run on hosts, and how their answers are read. Their own lines begin with `helix:`, so that
//! a greeting from a login shell is not mistaken for one.

use crate::shell::quote;

/// Under the home folder: programs by version, and a folder per node.
pub(crate) const BASE: &str = "$HOME/.local/share/helix/worker";

/// What one look at a host tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// `uname -s`.
    pub system: String,
    /// `uname -m`.
    pub machine: String,
    /// The home folder.
    pub home: String,
    /// Loaders of dynamic programs.
    pub loaders: Vec<String>,
    /// Free space where programs are put, in KiB, where `df` says.
    pub free_kib: Option<u64>,
    /// False where the folder cannot be made or written.
    pub writable: bool,
    /// Versions that are installed.
    pub versions: Vec<String>,
}

/// Looks at a host.
pub(crate) fn probe() -> String {
    format!(
        r#"B="{BASE}"
printf 'helix:system %s\n' "$(uname -s)"
printf 'helix:machine %s\n' "$(uname -m)"
printf 'helix:home %s\n' "$HOME"
for f in /lib/ld-musl-*.so.1 /lib/ld-linux*.so.* /lib64/ld-linux*.so.*; do
  [ -e "$f" ] && printf 'helix:loader %s\n' "$f"
done
mkdir -p "$B" && [ -w "$B" ] && printf 'helix:writable\n'
printf 'helix:free %s\n' "$(df -Pk "$B" 2>/dev/null | awk 'NR == 2 {{ print $4 }}')"
for p in "$B"/programs/*/helix-worker; do
  [ -x "$p" ] && printf 'helix:program %s\n' "$p"
done
exit 0"#
    )
}

impl Probe {
    /// Reads the answer of [`probe`].
    pub(crate) fn read(output: &str) -> Self {
        let mut probe = Self::default();
        for line in output.lines() {
            let Some(line) = line.strip_prefix("helix:") else { continue };
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "system" => value.clone_into(&mut probe.system),
                "machine" => value.clone_into(&mut probe.machine),
                "home" => value.clone_into(&mut probe.home),
                "loader" => probe.loaders.push(value.to_owned()),
                "writable" => probe.writable = true,
                "free" => probe.free_kib = value.parse().ok(),
                "program" => probe.versions.extend(value.rsplit('/').nth(1).map(str::to_owned)),
                _ => {}
            }
        }
        probe
    }
}

/// Where a program lies on a host, as the shell writes it.
fn program(version: &str) -> String {
    format!("\"{BASE}\"/programs/{}/helix-worker", quote(version))
}

/// Where a node's worker lives on a host.
fn folder(node: &str) -> String {
    format!("\"{BASE}\"/data-{}", quote(node))
}

/// Takes a program of `length` bytes from stdin, tries that it runs, and puts it in its place at once.
pub(crate) fn install(version: &str, length: u64) -> String {
    format!(
        r#"P={program}
T="$P.$$"
umask 077
mkdir -p "${{P%/*}}" || exit 74
cat > "$T" || {{ rm -f "$T"; exit 74; }}
[ "$(wc -c < "$T")" -eq {length} ] || {{ rm -f "$T"; echo "the upload was cut short" >&2; exit 74; }}
chmod 755 "$T" || exit 74
said=$("$T" --help) || {{ s=$?; rm -f "$T"; exit "$s"; }}
case $said in
  *helix-worker*) ;;
  # A shell that meets a program of another machine may run it as a script.
  *) rm -f "$T"; echo "Exec format error" >&2; exit 126 ;;
esac
mv -f "$T" "$P""#,
        program = program(version)
    )
}

/// Starts the worker's process.
pub(crate) fn start(version: &str, node: &str) -> String {
    format!(
        r#"P={program}
F={folder}
[ -x "$P" ] || {{ echo helix:absent; exit 0; }}
umask 077
mkdir -p "$F" || exit 74
exec "$P" start --folder "$F" < /dev/null"#,
        program = program(version),
        folder = folder(node)
    )
}

/// Bridges to the worker's socket. A first bridge without input tells whether somebody listens there; only then
/// `helix:ready` is said, and everything after that line is the link.
pub(crate) fn attach(version: &str, node: &str) -> String {
    format!(
        r#"P={program}
F={folder}
[ -x "$P" ] || {{ echo helix:absent; exit 0; }}
"$P" attach --stdio --folder "$F" < /dev/null > /dev/null || exit "$?"
echo helix:ready
exec "$P" attach --stdio --folder "$F""#,
        program = program(version),
        folder = folder(node)
    )
}

/// Stops the worker, which deletes what it made; the programs too where no other node uses them. Without any program left there
/// nobody else knows what in the folder is the worker's, and all of it goes.
pub(crate) fn remove(version: &str, node: &str) -> String {
    format!(
        r#"B="{BASE}"
P={program}
F={folder}
if [ ! -x "$P" ]; then
  for p in "$B"/programs/*/helix-worker; do [ -x "$p" ] && P="$p"; done
fi
if [ -e "$F" ] && [ -x "$P" ]; then
  "$P" stop --wipe --folder "$F" < /dev/null || exit "$?"
elif ! [ -x "$P" ]; then
  rm -rf "$F" || exit 74
fi
for d in "$B"/data-*; do [ -e "$d" ] && exit 0; done
rm -rf "$B" || exit 74
rmdir "$HOME/.local/share/helix" 2> /dev/null
exit 0"#,
        program = program(version),
        folder = folder(node)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_between_a_login_shells_greetings() {
        let output = "Welcome!\nhelix:system Linux\nhelix:machine aarch64\nhelix:home /home/me\nhelix:loader /lib/ld-musl-aarch64.so.1\n\
                      helix:writable\nhelix:free 1024\nhelix:program /home/me/.local/share/helix/worker/programs/1-ab/helix-worker\nbye\n";
        assert_eq!(
            Probe::read(output),
            Probe {
                system: "Linux".to_owned(),
                machine: "aarch64".to_owned(),
                home: "/home/me".to_owned(),
                loaders: vec!["/lib/ld-musl-aarch64.so.1".to_owned()],
                free_kib: Some(1_024),
                writable: true,
                versions: vec!["1-ab".to_owned()],
            }
        );
    }
}
