//! Networks by address prefix (CIDR, RFC 4632 section 3.1 and RFC 4291 section 2.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network of IPv4 or IPv6 addresses. An IPv4 address that comes in IPv6 form (`::ffff:192.0.2.1`, RFC 4291
/// section 2.5.5.2) is the IPv4 address that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address.
    address: IpAddr,
    /// How many leading bits count.
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is written as an address and a prefix length, such as 10.0.0.0/8 or 2001:db8::/32, with no bit set past the prefix"
)]
pub struct MalformedNetwork;

impl Network {
    /// The network of all addresses that have the first `prefix` bits of `address`. `None` where the prefix is
    /// longer than the address, or the address has bits set past it.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            return None;
        }
        let network = Self { address, prefix };
        (prefix <= width(address) && network.first_bits(address) == bits(address)).then_some(network)
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && self.first_bits(address) == bits(self.address)
    }

    /// As a record keeps it: the address's bytes, then the prefix length.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = match self.address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes.push(self.prefix);
        bytes
    }

    /// The network of these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (prefix, address) = bytes.split_last()?;
        let address = match address.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
            16 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
            _ => return None,
        };
        Network::new(address, *prefix)
    }

    fn first_bits(&self, address: IpAddr) -> u128 {
        let past = u32::from(width(address) - self.prefix.min(width(address)));
        let bits = bits(address);
        bits.checked_shr(past).map_or(0, |kept| kept << past)
    }
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl FromStr for Network {
    type Err = MalformedNetwork;

    /// An address alone is the network of that one address.
    fn from_str(text: &str) -> Result<Self, MalformedNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| MalformedNetwork)?;
        let prefix = match prefix {
            // Digits only: the parser of numbers would take a sign.
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().map_err(|_| MalformedNetwork)?
            }
            Some(_) => return Err(MalformedNetwork),
            None => width(address),
        };
        Network::new(address, prefix).ok_or(MalformedNetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().unwrap();
        assert_eq!(Network::from_bytes(&network.to_bytes()), Some(network));
        network.contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_the_networks_whose_prefix_it_has() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "::ffff:10.1.2.3"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7/32", "192.0.2.6"));
        assert!(contains("2001:db8:0:8000::/49", "2001:db8:0:ffff::1"));
        assert!(!contains("2001:db8:0:8000::/49", "2001:db8:0:7fff::1"));
    }

    #[test]
    fn only_whole_networks_are_taken() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "2001:db8::/129",
            "2001:db8::1/64",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0/8",
            "host/8",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(MalformedNetwork), "{text}");
        }
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
