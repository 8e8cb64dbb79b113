//! Reads the PROXY protocol header, versions 1 and 2, in which a load balancer names the client whose connection it
//! forwards.

use std::{io, net::SocketAddr};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::client_address::canonical;

/// Maximum length of a version 1 header, including its line end.
const V1_BYTES_MAX: usize = 107;
/// Maximum length of the variable part of version 2: addresses, and the balancer's own fields.
const V2_BYTES_MAX: usize = 4 << 10;
const V2_FIXED_BYTES: usize = 16;

/// Why the header could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    /// The connection ended or broke.
    #[error("the connection ended in it")]
    Io(#[from] io::Error),
    /// The connection begins with something else.
    #[error("there is none")]
    Absent,
    /// The header is malformed.
    #[error("it is malformed")]
    Malformed,
    /// The header is longer than any header that is needed.
    #[error("it is too long")]
    TooLong,
}

/// Reads the header, and not a byte more. Returns the client that it names, or `None` if the connection is the
/// balancer's own (a health check) or the client has no IP address.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut header = vec![0; v2::PROTOCOL_PREFIX.len()];
    // Byte by byte: both signatures are shorter than any header, and anything else shows at its first wrong byte.
    for index in 0..header.len() {
        header[index] = stream.read_u8().await?;
        let read = &header[..=index];
        if read == b"PROXY " {
            header.truncate(read.len());
            return version_1(stream, header).await;
        }
        if !b"PROXY ".starts_with(read) && !v2::PROTOCOL_PREFIX.starts_with(read) {
            return Err(ProxyHeaderError::Absent);
        }
    }
    version_2(stream, header).await
}

async fn version_1(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    while !header.ends_with(b"\r\n") {
        if header.len() == V1_BYTES_MAX {
            return Err(ProxyHeaderError::TooLong);
        }
        header.push(stream.read_u8().await?);
    }
    let header =
        v1::Header::try_from(header.as_slice()).map_err(|_| ProxyHeaderError::Malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some(canonical(ip.source_address.into(), ip.source_port)),
        v1::Addresses::Tcp6(ip) => Some(canonical(ip.source_address.into(), ip.source_port)),
    })
}

async fn version_2(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    header.resize(V2_FIXED_BYTES, 0);
    stream
        .read_exact(&mut header[v2::PROTOCOL_PREFIX.len()..])
        .await?;
    let follows = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if follows > V2_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong);
    }
    header.resize(V2_FIXED_BYTES + follows, 0);
    stream.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    let header =
        v2::Header::try_from(header.as_slice()).map_err(|_| ProxyHeaderError::Malformed)?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
            Some(canonical(ip.source_address.into(), ip.source_port))
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
            Some(canonical(ip.source_address.into(), ip.source_port))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn named(mut bytes: &[u8]) -> Result<(Option<String>, String), ProxyHeaderError> {
        let client = read(&mut bytes).await?;
        let rest = String::from_utf8_lossy(bytes).into_owned();
        Ok((client.map(|client| client.to_string()), rest))
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short");
        let fixed = [
            command,
            family,
            length.to_be_bytes()[0],
            length.to_be_bytes()[1],
        ];
        [v2::PROTOCOL_PREFIX, &fixed, addresses, b"GET /"].concat()
    }

    #[tokio::test]
    async fn version_1_names_the_client_and_leaves_the_rest_unread() {
        for (header, client) in [
            (
                "PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n",
                Some("203.0.113.7:4711"),
            ),
            (
                "PROXY TCP6 2001:db8::7 ::1 99 80\r\n",
                Some("[2001:db8::7]:99"),
            ),
            ("PROXY UNKNOWN\r\n", None),
        ] {
            let (found, rest) = named(format!("{header}GET /").as_bytes())
                .await
                .expect(header);
            assert_eq!((found.as_deref(), rest.as_str()), (client, "GET /"));
        }
    }

    #[tokio::test]
    async fn version_2_names_the_client_and_a_health_check_none() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        let with_more = [v4.as_slice(), &[4, 0, 1, 42]].concat();
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(
            &"2001:db8::7"
                .parse::<std::net::Ipv6Addr>()
                .expect("one")
                .octets(),
        );
        v6[33] = 99;
        for (header, client) in [
            (v2(0x21, 0x11, &v4), Some("203.0.113.7:4711")),
            (v2(0x21, 0x11, &with_more), Some("203.0.113.7:4711")),
            (v2(0x21, 0x21, &v6), Some("[2001:db8::7]:99")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[]), None),
        ] {
            let (found, rest) = named(&header).await.expect("a header");
            assert_eq!((found.as_deref(), rest.as_str()), (client, "GET /"));
        }
    }

    #[tokio::test]
    async fn an_invalid_proxy_header_is_refused_after_bounded_bytes() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        let huge = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat();
        for bad in [
            "GET / HTTP/1.1\r\n\r\n".as_bytes(),
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY\r\n",
            b"",
            b"PROX",
            &long.into_bytes(),
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x2f, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 4]),
            &huge,
        ] {
            assert!(
                named(bad).await.is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
