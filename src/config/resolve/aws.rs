//! The `aws` block, and the shapes of AWS names.
//!
//! Invariant: what passes has the form that AWS documents for it; whether it exists only AWS knows.
//! An endpoint's URL is never repeated in a message, as it may hold a password.

use std::ops::RangeInclusive;

use hyper::Uri;

use crate::config::diagnostic::{Mistakes, quote};
use crate::config::reader::{Block, Slot};
use crate::config::{AssumeRole, Aws, defaults, limits, schema};

/// Reads the `aws` block.
pub(super) fn aws(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Aws> {
    let block = Block::open(slot, &schema::AWS, mistakes)?;
    let owned = |text: Option<&str>| text.map(|text| Some(text.to_owned()));
    Some(Aws {
        region: block.field("region", None, |slot| owned(region(slot, mistakes))).value,
        endpoint_url: block.field("endpoint_url", None, |slot| owned(url(slot, mistakes))).value,
        profile: block.field("profile", None, |slot| owned(slot.text(mistakes))).value,
        assume_role: block
            .field("assume_role", None, |slot| assume_role(slot, mistakes).map(Some))
            .value,
    })
}

fn assume_role(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<AssumeRole> {
    let block = Block::open(slot, &schema::ASSUME_ROLE, mistakes)?;
    let role_arn = block.required("role_arn", "", mistakes).and_then(|slot| {
        let text = slot.text(mistakes)?;
        let shaped = Arn::parse(text).is_some_and(|arn| {
            arn.service == "iam"
                && is_account(arn.account)
                && arn.resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
        });
        if !shaped {
            let hint = "as in `arn:aws:iam::123456789012:role/logs`";
            slot.tell(&format!("is no role's ARN: {}", quote(text)), hint, mistakes);
        }
        shaped.then(|| text.to_owned())
    });
    let external_id = block.field("external_id", None, |slot| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
        let text = shaped(slot, &limits::EXTERNAL_ID_CHARS, allowed, "_+=,.@:/-", mistakes)?;
        Some(Some(text.to_owned()))
    });
    let session_name = block.field("session_name", defaults::SESSION_NAME, |slot| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        shaped(slot, &limits::SESSION_NAME_CHARS, allowed, "_+=,.@-", mistakes)
    });
    Some(AssumeRole {
        role_arn: role_arn?,
        external_id: external_id.value,
        session_name: session_name.value.to_owned(),
    })
}

/// Reads a name of letters, digits and `marks`, of a length within `chars`.
pub(super) fn shaped<'a>(
    slot: Slot<'a>,
    chars: &RangeInclusive<usize>,
    allowed: impl Fn(char) -> bool,
    marks: &str,
    mistakes: &mut Mistakes,
) -> Option<&'a str> {
    let text = slot.text(mistakes)?;
    if let Some(strange) = text.chars().find(|c| !allowed(*c)) {
        let what = format!("cannot hold {}", quote(&strange.to_string()));
        slot.tell(&what, format!("letters, digits and `{marks}` can stand in it"), mistakes);
        return None;
    }
    within(slot, text, chars, mistakes)
}

/// Returns `text` where it has as many characters as it may, or tells that it has not.
pub(super) fn within<'a>(
    slot: Slot<'_>,
    text: &'a str,
    chars: &RangeInclusive<usize>,
    mistakes: &mut Mistakes,
) -> Option<&'a str> {
    let count = text.chars().count();
    if chars.contains(&count) {
        return Some(text);
    }
    let (least, most) = (chars.start(), chars.end());
    slot.tell(&format!("must have {least} to {most} characters, not {count}"), "", mistakes);
    None
}

fn region<'a>(slot: Slot<'a>, mistakes: &mut Mistakes) -> Option<&'a str> {
    let text = slot.text(mistakes)?;
    if is_region(text) {
        return Some(text);
    }
    let zone = text.strip_suffix(|c: char| c.is_ascii_lowercase()).filter(|zone| is_region(zone));
    let hint = match zone {
        Some(region) => format!("that is an availability zone; its region is `{region}`"),
        None => "as in `eu-west-1`".to_owned(),
    };
    slot.tell(&format!("is no region: {}", quote(text)), hint, mistakes);
    None
}

/// Returns true for names such as `eu-west-1`, `us-gov-east-1`, `eusc-de-east-1`.
fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    (1..=2).contains(&number.len())
        && number.chars().all(|c| c.is_ascii_digit())
        && words.contains('-')
        && words.split('-').all(is_word)
}

/// Reads an endpoint's URL.
pub(super) fn url<'a>(slot: Slot<'a>, mistakes: &mut Mistakes) -> Option<&'a str> {
    let hint = "as in `http://127.0.0.1:4567`";
    let text = slot.text(mistakes)?;
    let uri = text.parse::<Uri>().ok();
    let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.host()?))) else {
        slot.tell("is no URL", hint, mistakes);
        return None;
    };
    let fault = if !matches!(uri.scheme_str(), Some("http" | "https")) {
        "must begin with http:// or https://"
    } else if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        "must not hold a user name or a password"
    } else if host.is_empty() {
        "names no host"
    } else if text.contains(['?', '#']) {
        "must not have a query or a fragment"
    } else {
        return Some(text);
    };
    slot.tell(fault, hint, mistakes);
    None
}

/// Reads a stream's name or ARN.
pub(super) fn stream<'a>(slot: Slot<'a>, mistakes: &mut Mistakes) -> Option<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let text = slot.text(mistakes)?;
    if !text.starts_with("arn:") {
        return shaped(slot, &limits::STREAM_CHARS, is_name, "_.-", mistakes);
    }
    let is_stream = Arn::parse(text).is_some_and(|arn| {
        arn.service == "kinesis"
            && is_region(arn.region)
            && is_account(arn.account)
            && arn.resource.strip_prefix("stream/").is_some_and(|name| {
                name.chars().all(is_name) && limits::STREAM_CHARS.contains(&name.len())
            })
    });
    if !is_stream {
        let hint = "as in `arn:aws:kinesis:eu-west-1:123456789012:stream/logs`";
        slot.tell(&format!("is no stream's ARN: {}", quote(text)), hint, mistakes);
    }
    is_stream.then_some(text)
}

/// Returns the region in a stream's ARN, where `stream` is one.
pub(super) fn region_of_arn(stream: &str) -> Option<&str> {
    Arn::parse(stream).map(|arn| arn.region)
}

/// The parts of `arn:partition:service:region:account:resource`.
struct Arn<'a> {
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition) = (parts.next()?, parts.next()?);
        if arn != "arn" || !partition.starts_with("aws") {
            return None;
        }
        Some(Self {
            service: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next()?,
        })
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_known_by_their_shape() {
        for region in
            ["eu-west-1", "us-gov-east-1", "us-isob-east-1", "eusc-de-east-1", "cn-north-1"]
        {
            assert!(is_region(region), "{region}");
        }
        for other in
            ["", "eu", "eu-west", "eu-west-1a", "EU-WEST-1", "eu--1", "eu-1", "eu-west-123"]
        {
            assert!(!is_region(other), "{other}");
        }
    }

    #[test]
    fn the_region_of_an_arn_is_found() {
        let arn = "arn:aws-us-gov:kinesis:us-gov-east-1:123456789012:stream/logs";
        assert_eq!(region_of_arn(arn), Some("us-gov-east-1"));
        assert_eq!(region_of_arn("logs"), None);
    }
}
