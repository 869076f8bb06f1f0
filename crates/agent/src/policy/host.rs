//! Which host is meant, and is it a private one?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host as a URL's parser reads it: lower case, without a last dot, odd spellings of addresses resolved
/// (`0x7f.1` is 127.0.0.1), names in their ASCII form; `None` for what is no host.
#[must_use]
pub fn normalise(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.');
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Some(address.to_string());
    }
    match url::Host::parse(host).ok()? {
        url::Host::Domain(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        url::Host::Ipv4(address) => Some(address.to_string()),
        url::Host::Ipv6(address) => Some(address.to_string()),
    }
}

/// Whether a normalised host is of this machine or its network: a private address, or a name that only a
/// local resolver knows.
#[must_use]
pub fn is_private_host(host: &str) -> bool {
    const LOCAL: [&str; 7] =
        [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".localdomain"];
    match host.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => !host.contains('.') || LOCAL.iter().any(|end| host.ends_with(end)),
    }
}

/// Whether an address belongs to the public internet: none of the special blocks of RFC 6890 and the later
/// registries (private, shared, loopback, link-local with the clouds' metadata service, documentation,
/// multicast, reserved), also not through an IPv6 form that carries an IPv4 address.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match a {
        0 | 10 | 127 => true,
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        192 => b == 168 || (b == 0 && (c == 0 || c == 2)) || (b == 88 && c == 99),
        198 => b == 18 || b == 19 || (b == 51 && c == 100),
        203 => b == 0 && c == 113,
        _ => a >= 224,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // Addresses that carry an IPv4 one: mapped, compatible, translated (RFC 6052), 6to4.
        (0, 0) if (c, d, e) == (0, 0, 0) && (f == 0 || f == 0xffff) => (f, g) != (0, 0) && v4(g, h),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => v4(g, h),
        (0x2002, _) => v4(b, c),
        // Of the global range, what is set apart: Teredo and other protocols, documentation.
        (0x2001, _) => b >= 0x200 && b != 0xdb8,
        (0x3fff, _) => b >= 0x1000,
        _ => (0x2000..0x4000).contains(&a),
    }
}
