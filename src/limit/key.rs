use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::COOKIE;
use smallvec::SmallVec;

use super::Per;

/// Who a request is counted for: an address, a network, or the hash of a header's or cookie's value.
///
/// **Shape**: 128 bits, `Copy`; the lowest three say which kind it is, so that no kind can be mistaken for another.
/// Values are hashed with a key that is drawn anew in each process: nobody outside can choose values that meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(u128);

const IPV4: u128 = 4;
const IPV6: u128 = 6;
const VALUE: u128 = 7;
const KIND: u128 = 7;

/// The process's hash keys. Two hashes of 64 bits make one of 128; the salt sets the second apart from the first.
static SECRETS: LazyLock<(RandomState, RandomState, u64)> = LazyLock::new(|| {
    let (first, second) = (RandomState::new(), RandomState::new());
    let salt = RandomState::new().hash_one(0u8);
    (first, second, salt)
});

impl ClientKey {
    /// Everybody.
    pub const ALL: ClientKey = ClientKey(0);

    /// The client at this address: an IPv4 address alone, an IPv6 address as its /64.
    pub fn address(client: IpAddr) -> Self {
        Self::network(client, 32)
    }

    /// The first `bits` of an IPv4 address, or the /64 of an IPv6 one. An IPv4-mapped IPv6 address is the IPv4 address.
    pub fn network(client: IpAddr, bits: u8) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
                ClientKey(u128::from(address.to_bits() & mask) << 64 | IPV4)
            }
            IpAddr::V6(address) => ClientKey(address.to_bits() >> 64 << 64 | IPV6),
        }
    }

    /// Whoever sends this value.
    ///
    /// **Cost**: two SipHashes, about 30 ns for an API key.
    pub fn value(bytes: &[u8]) -> Self {
        let (first, second, salt) = &*SECRETS;
        let mut high = first.build_hasher();
        high.write(bytes);
        let mut low = second.build_hasher();
        low.write_u64(*salt);
        low.write(bytes);
        let hash = u128::from(high.finish()) << 64 | u128::from(low.finish());
        ClientKey(hash & !KIND | VALUE)
    }

    /// What this client does with one thing, such as a tool, counted by itself.
    ///
    /// **Cost**: that of [`ClientKey::value`].
    pub fn with(self, thing: &[u8]) -> Self {
        let mut both: SmallVec<[u8; 64]> = SmallVec::from_slice(&self.0.to_le_bytes());
        both.extend_from_slice(thing);
        Self::value(&both)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upper = self.0 >> 64;
        match self.0 & KIND {
            IPV4 => write!(f, "ClientKey({})", std::net::Ipv4Addr::from_bits(upper as u32)),
            IPV6 => write!(f, "ClientKey({}/64)", std::net::Ipv6Addr::from_bits(upper << 64)),
            // A hash of a secret is nobody's business.
            VALUE => f.write_str("ClientKey(value)"),
            _ => f.write_str("ClientKey(all)"),
        }
    }
}

impl Per {
    /// Who a request of this client with these headers is counted for; `principal` is who it has been found to be.
    pub fn key(&self, client: IpAddr, headers: &HeaderMap, principal: Option<&str>) -> ClientKey {
        match self {
            Per::Client => ClientKey::address(client),
            Per::Prefix(bits) => ClientKey::network(client, *bits),
            Per::Header(name) => by_value(headers.get(name).map(|value| value.as_bytes()), client),
            Per::Cookie(name) => by_value(cookie(headers, name.as_bytes()), client),
            Per::Principal => by_value(principal.map(str::as_bytes), client),
            Per::All => ClientKey::ALL,
        }
    }
}

fn by_value(value: Option<&[u8]>, client: IpAddr) -> ClientKey {
    value.filter(|value| !value.is_empty()).map_or_else(|| ClientKey::address(client), ClientKey::value)
}

/// The first cookie of this name (RFC 6265 §4.2.1: `name=value` pairs, parted by `;`).
fn cookie<'h>(headers: &'h HeaderMap, name: &[u8]) -> Option<&'h [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b';')).find_map(|pair| {
        let rest = pair.trim_ascii_start().strip_prefix(name)?;
        rest.strip_prefix(b"=").map(<[u8]>::trim_ascii_end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> ClientKey {
        ClientKey::address(address.parse().unwrap())
    }

    fn network(address: &str, bits: u8) -> ClientKey {
        ClientKey::network(address.parse().unwrap(), bits)
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_a_mapped_ipv4_client_its_ipv4_address() {
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.1.2.3"), key("10.1.2.3"));
        assert_ne!(key("10.1.2.3"), key("10.1.2.4"));
        assert_eq!(
            format!("{:?} {:?}", key("10.1.2.3"), key("2001:db8::1")),
            "ClientKey(10.1.2.3) ClientKey(2001:db8::/64)"
        );
    }

    #[test]
    fn a_prefix_counts_its_network_together() {
        assert_eq!(network("10.1.2.3", 24), network("10.1.2.200", 24));
        assert_ne!(network("10.1.2.3", 24), network("10.1.3.3", 24));
        assert_eq!(network("10.1.2.3", 0), network("192.168.0.1", 0));
        assert_eq!(network("10.1.2.3", 32), key("10.1.2.3"));
        assert_eq!(network("2001:db8::1", 24), key("2001:db8::1"));
    }

    #[test]
    fn a_request_without_the_header_or_cookie_is_counted_by_address() {
        let client = "10.1.2.3".parse().unwrap();
        let mut headers = HeaderMap::new();
        let header: Per = "header:x-api-key".parse().unwrap();
        let sid: Per = "cookie:sid".parse().unwrap();
        assert_eq!(header.key(client, &headers, None), ClientKey::address(client));
        assert_eq!(sid.key(client, &headers, None), ClientKey::address(client));
        headers.insert("x-api-key", "secret".parse().unwrap());
        headers.insert("cookie", "a=1; xsid=no; sid=abc ; sid=second".parse().unwrap());
        assert_eq!(header.key(client, &headers, None), ClientKey::value(b"secret"));
        assert_eq!(sid.key(client, &headers, None), ClientKey::value(b"abc"));
        headers.insert("x-api-key", "".parse().unwrap());
        assert_eq!(header.key(client, &headers, None), ClientKey::address(client));
        assert_eq!(Per::All.key(client, &headers, None), ClientKey::ALL);
        assert_eq!(Per::Principal.key(client, &headers, Some("alice")), ClientKey::value(b"alice"));
        assert_eq!(Per::Principal.key(client, &headers, None), ClientKey::address(client));
    }

    #[test]
    fn things_are_counted_apart_for_each_client() {
        let [one, other] = [key("10.1.2.3"), ClientKey::value(b"secret")];
        assert_eq!(one.with(b"add"), one.with(b"add"));
        let keys = [
            one,
            other,
            one.with(b""),
            one.with(b"add"),
            other.with(b"add"),
            one.with(b"ad"),
            ClientKey::ALL.with(b"add"),
        ];
        let apart: std::collections::HashSet<_> = keys.into_iter().collect();
        assert_eq!(apart.len(), keys.len());
    }

    #[test]
    fn values_never_meet_addresses_or_one_another() {
        let keys: std::collections::HashSet<_> = (0u32..10_000)
            .flat_map(|n| [ClientKey::value(&n.to_le_bytes()), ClientKey::address(IpAddr::V4(n.into()))])
            .collect();
        assert_eq!(keys.len(), 20_000);
        assert!(!keys.contains(&ClientKey::ALL));
        assert_eq!(format!("{:?}", ClientKey::value(b"secret")), "ClientKey(value)");
    }
}
