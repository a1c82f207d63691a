//! What a task may reach: hosts by name, and which addresses those names may stand for. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use helix_protocol::{Code, Failure};
use reqwest::Url;

/// Refuses an address that no grant covers, and answers with its host as names are compared: small letters, no dot at the end, an
/// IPv6 address without its brackets.
pub(crate) fn host_of(url: &Url, hosts: &[String]) -> Result<String, Failure> {
    let refuse = |message: String, hint: &str| Err(Failure::new(Code::InvalidRequest, message).hint(hint));
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(format!("{url} is neither http nor https"), "give an address that begins with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("the address has a name or a password in it".to_owned(), "leave out what stands before the @");
    }
    let host = plain(url.host_str().unwrap_or_default());
    if host.is_empty() || !hosts.iter().any(|granted| covers(granted, &host)) {
        let granted = if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") };
        return refuse(
            format!("{host:?} is not a host that this task may reach"),
            &format!("it may reach {granted}; whoever makes the task grants more with --web-host"),
        );
    }
    Ok(host)
}

/// Refuses an address that is not of the public internet, unless the grant names it.
pub(crate) fn judge(host: &str, address: IpAddr, hosts: &[String]) -> Result<(), Failure> {
    let named = hosts.iter().any(|granted| plain(granted).parse::<IpAddr>().is_ok_and(|granted| same(granted, address)));
    // The name of this machine means its loopback and nothing else, so whoever grants it has named it.
    let here = host == "localhost" && address.is_loopback() && hosts.iter().any(|granted| plain(granted) == "localhost");
    if named || here || is_public(address) {
        return Ok(());
    }
    Err(Failure::new(Code::InvalidRequest, format!("{host} stands for {address}, which is not an address of the public internet"))
        .hint(format!("whoever makes the task can grant the address itself: --web-host {address}")))
}

/// `*.example.com` covers every host below `example.com`, and not `example.com`.
fn covers(granted: &str, host: &str) -> bool {
    let granted = plain(granted);
    match granted.strip_prefix("*.") {
        Some(domain) => {
            host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).is_some_and(|below| !below.is_empty())
                && host.parse::<IpAddr>().is_err()
        }
        None => granted == host,
    }
}

fn plain(host: &str) -> String {
    let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map_or_else(|| host.clone(), str::to_owned)
}

fn same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

/// True for an address that is meant for everybody. Ranges: the special-purpose registries of IANA (RFC 6890 and its successors).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Shared between a carrier's customers.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        // The old relays of 6to4.
        || (a == 192 && b == 88 && c == 99)
        // Measurements between networks.
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // What a translator makes IPv4 of is judged as that.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Of the rest only the one block that is handed out, without Teredo, benchmarking, ORCHID and documentation.
        [first, ..] if first & 0xe000 != 0x2000 => false,
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn granted(url: &str, hosts: &[&str]) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Url::parse(url).is_ok_and(|url| host_of(&url, &hosts).is_ok())
    }

    #[test]
    fn a_grant_covers_the_host_it_names_and_a_star_those_below() {
        for (url, hosts, expected) in [
            ("https://docs.rs/tokio", &["docs.rs"][..], true),
            ("https://DOCS.rs./tokio", &["docs.rs"], true),
            ("https://docs.rs", &["Docs.RS."], true),
            ("https://evil-docs.rs", &["docs.rs"], false),
            ("https://docs.rs.evil.example", &["docs.rs"], false),
            ("https://a.python.org", &["*.python.org"], true),
            ("https://a.b.python.org", &["*.python.org"], true),
            ("https://python.org", &["*.python.org"], false),
            ("https://xpython.org", &["*.python.org"], false),
            ("https://docs.rs", &["*"], false),
            ("https://docs.rs", &[], false),
            ("ftp://docs.rs", &["docs.rs"], false),
            ("file:///etc/passwd", &["docs.rs", ""], false),
            ("https://docs.rs@evil.example", &["docs.rs"], false),
            ("https://user:word@docs.rs", &["docs.rs"], false),
            ("http://[::1]:8080/", &["::1"], true),
            // Ways to write 127.0.0.1 that a parser of addresses knows.
            ("http://2130706433/", &["127.0.0.1"], true),
            ("http://0x7f.1/", &["*.1"], false),
        ] {
            assert_eq!(granted(url, hosts), expected, "{url} {hosts:?}");
        }
    }

    #[test]
    fn addresses_that_are_not_for_everybody_are_refused_unless_they_are_named() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
            "64:ff9b:1::1",
        ] {
            let parsed: IpAddr = address.parse().expect("an address");
            let name = ["intranet.example".to_owned()];
            assert!(judge("intranet.example", parsed, &name).is_err(), "{address}");
            assert_eq!(judge("intranet.example", parsed, &[name[0].clone(), address.to_owned()]), Ok(()), "{address}");
        }
        for address in ["93.184.216.34", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::101:101"] {
            assert_eq!(judge("a", address.parse().expect("an address"), &[]), Ok(()), "{address}");
        }
    }

    #[test]
    fn localhost_names_the_loopback_and_nothing_else() {
        let hosts = ["localhost".to_owned()];
        assert_eq!(judge("localhost", "127.0.0.1".parse().expect("an address"), &hosts), Ok(()));
        assert!(judge("localhost", "10.0.0.1".parse().expect("an address"), &hosts).is_err());
        assert!(judge("other", "127.0.0.1".parse().expect("an address"), &hosts).is_err());
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_clothing(bits: u32) {
            let plain = Ipv4Addr::from_bits(bits);
            let expected = is_public(IpAddr::V4(plain));
            let [a, b, c, d] = plain.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let dressed = [
                plain.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ];
            for address in dressed {
                prop_assert_eq!(is_public(IpAddr::V6(address)), expected, "{}", address);
            }
        }
    }
}
