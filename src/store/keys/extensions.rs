//! Secrets of extensions: their part of the keyspace.

use super::{Key, of, tagged};
use crate::domain::extension::{Grantee, SecretPath};
use crate::domain::id::OrgId;
use crate::domain::name::Name;

/// All namespaces of extension secrets.
pub fn extension_namespaces(org: OrgId) -> Key {
    of(org, "extension-namespace", &[])
}

/// How much a namespace holds.
pub fn extension_namespace(org: OrgId, namespace: &Name) -> Key {
    of(org, "extension-namespace", &[namespace.as_str().as_bytes()])
}

/// The secrets of a namespace; `None`: of all.
pub fn extension_secrets(org: OrgId, namespace: Option<&Name>) -> Key {
    in_namespace(org, "extension-secret", namespace, &[])
}

/// A secret of an extension.
pub fn extension_secret(org: OrgId, path: &SecretPath) -> Key {
    let name = path.name.as_str().as_bytes();
    in_namespace(org, "extension-secret", Some(&path.namespace), name)
}

/// The value of an extension's secret.
pub fn extension_value(org: OrgId, path: &SecretPath) -> Key {
    let name = path.name.as_str().as_bytes();
    in_namespace(org, "extension-value", Some(&path.namespace), name)
}

/// The grants of a namespace; `None`: of all.
pub fn extension_grants(org: OrgId, namespace: Option<&Name>) -> Key {
    in_namespace(org, "extension-grant", namespace, &[])
}

/// That somebody may read a namespace.
pub fn extension_grant(org: OrgId, namespace: &Name, grantee: Grantee) -> Key {
    let part = match grantee {
        Grantee::Agent(id) => tagged(0, id.as_bytes()),
        Grantee::Environment(id) => tagged(1, id.as_bytes()),
    };
    in_namespace(org, "extension-grant", Some(namespace), &part)
}

/// No name has the byte 0 in it, so a namespace's keys have a prefix that no other namespace's have.
fn in_namespace(org: OrgId, kind: &str, namespace: Option<&Name>, rest: &[u8]) -> Key {
    match namespace {
        Some(namespace) => of(org, kind, &[namespace.as_str().as_bytes(), b"\0", rest]),
        None => of(org, kind, &[]),
    }
}
