//! `muster serve --rotate-issuing`: the next issuing certificate of a server that cannot issue any more, because the one it
//! has has ended. The root's key signs where it is: with the server, in a file, or elsewhere.

use crate::{
    cli::RotateAtStart,
    verbs::{read_text, secret, write_new},
};
use anyhow::{Context as _, bail};
use ca::{Authority, CaError, IssuerNumber, sign_issuing_request};
use std::time::SystemTime;

/// Makes or takes the next one where that is asked for and the one in use has ended.
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
    if !flags.rotate_issuing || !authority.issuing_has_ended(now) {
        return Ok(());
    }
    let number = next(authority, flags, now).context("--rotate-issuing")?;
    tracing::warn!(%number, clock = %readable(now)?, "the issuing certificate had ended: the next one was made");
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
        let signed = sign_issuing_request(&root, key, &request, &permitted, now)
            .with_context(|| file.display().to_string())?;
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
