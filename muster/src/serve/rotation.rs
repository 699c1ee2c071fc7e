//! `muster serve --rotate-issuing`: the next issuing certificate of a server that cannot issue any more, because the one it
//! has has ended or is revoked. The root's key signs where it is: with the server, in a file, or elsewhere.

use crate::{
    cli::RotateAtStart,
    verbs::{read_text, secret, write_new},
};
use anyhow::{Context as _, bail};
use ca::{Authority, CaError, IssuerNumber, SecretKey, sign_issuing_request, sign_root_list};
use std::time::SystemTime;

/// Makes or takes the next one where that is asked for and the one in use has ended or is revoked.
pub(super) fn rotate_ended(
    authority: &Authority,
    flags: &RotateAtStart,
    now: SystemTime,
) -> anyhow::Result<()> {
    if let Some((number, begins)) = authority.waiting(now) {
        tracing::warn!(
            %number,
            begins = %readable(begins)?,
            signing = %authority.signing(),
            "the newest issuing certificate is not valid yet, and the one before signs: is the clock behind, or was it ahead when that was made?"
        );
    }
    let revoked = authority.issuing_revoked(authority.signing());
    if let Some(revoked) = &revoked {
        tracing::error!(
            number = %authority.signing(),
            reason = %revoked.reason,
            "the issuing certificate is revoked and nothing is issued: muster ca rotate-issuing, or a start with --rotate-issuing"
        );
    }
    if !flags.rotate_issuing || !authority.issuing_is_over(now) {
        return Ok(());
    }
    let number = next(authority, flags, now).context("--rotate-issuing")?;
    let why = match revoked {
        Some(_) => "was revoked",
        None => "had ended",
    };
    tracing::warn!(%number, clock = %readable(now)?, "the issuing certificate {why}: the next one was made");
    Ok(())
}

fn next(
    authority: &Authority,
    flags: &RotateAtStart,
    now: SystemTime,
) -> anyhow::Result<IssuerNumber> {
    if let Some(file) = &flags.root_key {
        let key = secret(file, &flags.passphrase)?;
        let (root, request) = (authority.root_pem(), authority.issuing_request()?);
        let permitted = authority.permitted_names()?;
        let [list_url, _] = authority.newest_root_list_urls();
        let again = SecretKey::from_pem(key.to_pem().as_bytes(), None)?;
        let signed = sign_issuing_request(&root, key, &request, &permitted, Some(&list_url), now)
            .with_context(|| file.display().to_string())?;
        let list = authority.newest_root_list();
        if list.as_ref().is_none_or(|list| list.is_due(now)) {
            let former = list.as_ref().map(|list| &list.der[..]);
            let next = sign_root_list(&root, again, former, None, now)?;
            authority.take_root_list(next.as_bytes(), now)?;
        }
        return Ok(authority.adopt_issuing(&signed, None, now)?);
    }
    if let Some(file) = &flags.issuing_csr_out {
        write_new(file, authority.issuing_request()?.as_bytes())?;
        bail!(
            "the request is in {}: have it signed as an issuing certificate (CA:TRUE, pathlen:0, keyCertSign, cRLSign), then start once with --rotate-issuing --issuing-cert FILE",
            file.display()
        );
    }
    if let Some(file) = &flags.issuing_cert {
        let chain = read_text(file)?;
        let key = flags.issuing_key.as_deref();
        let key = key
            .map(|file| secret(file, &flags.passphrase))
            .transpose()?;
        return authority
            .adopt_issuing(&chain, key, now)
            .with_context(|| file.display().to_string());
    }
    match authority.rotate_issuing(now) {
        Err(CaError::RootOffline) => bail!(
            "the root's key is not with the server: bring it for this start (--root-key FILE), or have the request signed where it is (--issuing-csr-out FILE, then --issuing-cert FILE)"
        ),
        made => Ok(made?),
    }
}

fn readable(at: SystemTime) -> anyhow::Result<jiff::Timestamp> {
    let at = jiff::Timestamp::try_from(at).context("the clock's time")?;
    Ok(at.round(jiff::Unit::Second)?)
}
