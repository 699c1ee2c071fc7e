//! Firmware for devices: under their own client certificate, judged by the registry at every
//! request and at every piece, and only what a job of theirs installs.

mod image;
mod range;

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, header};
use ota::server::{Kept, MAX_DOWNLOADS_OF_A_THING};
use ota::{FirmwareName, FirmwareVersion};

use crate::api_error::ApiError;
use crate::device::Device;
use crate::peer::Peer;
use crate::rooms::Rooms;

/// The routes for devices.
pub(crate) fn router(rooms: &Arc<Rooms>) -> Router {
    let (manifests, images, roots) = (rooms.clone(), rooms.clone(), rooms.clone());
    let (repository, targets) = (rooms.clone(), rooms.clone());
    let deltas = rooms.clone();
    Router::new()
        .route(
            "/firmware/{name}/{version}/manifest.json",
            get(
                async move |Extension(peer): Extension<Peer>, Path(wanted): Path<Wanted>| {
                    answer(manifests, peer, move |rooms, device| {
                        let (name, version) = device.may_fetch(rooms, &wanted)?;
                        let manifest = rooms.ota.manifest(&name, &version)?;
                        Ok(of_type("application/json", manifest))
                    })
                    .await
                },
            ),
        )
        .route(
            "/firmware/{name}/{version}/image",
            get(
                async move |Extension(peer): Extension<Peer>,
                            Path(wanted): Path<Wanted>,
                            headers: HeaderMap| {
                    answer(images, peer, move |rooms, device| {
                        let (name, version) = device.may_fetch(rooms, &wanted)?;
                        let (file, firmware) = rooms.ota.open_image(&name, &version)?;
                        device.send(rooms, file, firmware.image(), &headers)
                    })
                    .await
                },
            ),
        )
        .route(
            "/firmware/{name}/{version}/delta/{from}",
            get(
                async move |Extension(peer): Extension<Peer>,
                            Path((name, version, from)): Path<(String, String, String)>,
                            headers: HeaderMap| {
                    answer(deltas, peer, move |rooms, device| {
                        // Whoever may have the image may have what makes it.
                        let (name, version) = device.may_fetch(rooms, &(name, version))?;
                        let (file, kept) = rooms.ota.open_delta(&name, &version, &from.parse()?)?;
                        device.send(rooms, file, kept, &headers)
                    })
                    .await
                },
            ),
        )
        .route(
            "/firmware/tuf/metadata/{file}",
            get(
                async move |Extension(peer): Extension<Peer>, Path(file): Path<String>| {
                    answer(repository, peer, move |rooms, _device| {
                        metadata(rooms, &file)
                    })
                    .await
                },
            ),
        )
        .route(
            "/firmware/tuf/targets/{hardware}/{name}/{version}",
            get(
                async move |Extension(peer): Extension<Peer>,
                            Path((hardware, name, version)): Path<(String, String, String)>,
                            headers: HeaderMap| {
                    answer(targets, peer, move |rooms, device| {
                        target(rooms, device, &hardware, (name, version), &headers)
                    })
                    .await
                },
            ),
        )
        .route(
            "/firmware/root/{file}",
            get(
                async move |Extension(peer): Extension<Peer>, Path(file): Path<String>| {
                    answer(roots, peer, move |rooms, _device| root(rooms, &file)).await
                },
            ),
        )
}

/// Name and version of the path, not yet checked.
type Wanted = (String, String);

impl Device {
    fn may_fetch(
        &self,
        rooms: &Rooms,
        (name, version): &Wanted,
    ) -> Result<(FirmwareName, FirmwareVersion), ApiError> {
        let (name, version) = (name.parse()?, version.parse()?);
        let thing = self.thing.as_str();
        if rooms
            .ota
            .may_fetch(thing, &name, &version, SystemTime::now())?
        {
            return Ok((name, version));
        }
        // The same for what does not exist: a device learns of no firmware but its own.
        Err(ApiError::forbidden(
            "AccessDeniedException",
            format!("thing {thing} has no job that installs firmware {name} {version}"),
        ))
    }
}

impl Device {
    /// Sends a file, at a pace that all downloads share.
    fn send(
        self,
        rooms: &Rooms,
        file: File,
        kept: Kept,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let Some(download) = rooms.ota.shaper().begin(self.thing.as_str()) else {
            return Err(ApiError::unavailable(&format!(
                "thing {} has {MAX_DOWNLOADS_OF_A_THING} downloads under way already; try again when one is done",
                self.thing
            )));
        };
        Ok(image::answer(file, kept, headers, self.standing, download))
    }
}

/// Answers a device that the registry vouches for, on a thread that may block.
async fn answer(
    rooms: Arc<Rooms>,
    peer: Peer,
    work: impl FnOnce(&Rooms, Device) -> Result<Response, ApiError> + Send + 'static,
) -> Response {
    let address = peer.address;
    let own = Arc::clone(&rooms);
    let done = tokio::task::spawn_blocking(move || {
        let device = Device::identify(&rooms, &peer, "Firmware is handed out")?;
        work(&rooms, device)
    })
    .await
    .map_err(|error| ApiError::internal(&error));
    match done.flatten() {
        Ok(response) => response,
        Err(error) => {
            if let Some(left_out) = own.refusals.take_counting() {
                tracing::info!(peer = %address, code = error.code, message = ?error.message, left_out, "firmware refused");
            }
            error.into_response()
        }
    }
}

/// `/firmware/root/N.json`: trust root N, for devices that walk from the root they know to the
/// newest.
fn root(rooms: &Rooms, file: &str) -> Result<Response, ApiError> {
    let version = file
        .strip_suffix(".json")
        .and_then(|number| number.parse().ok());
    let Some(version) = version else {
        return Err(ApiError::not_found(
            "A trust root is at /firmware/root/NUMBER.json.",
        ));
    };
    match rooms.ota.root(version)? {
        Some(json) => Ok(of_type("application/json", json.into_bytes())),
        None => Err(ApiError::not_found(format!(
            "There is no trust root version {version}."
        ))),
    }
}

/// `/firmware/tuf/metadata/FILE`: the repository's signed metadata.
fn metadata(rooms: &Rooms, file: &str) -> Result<Response, ApiError> {
    match rooms.ota.metadata(file, SystemTime::now())? {
        Some(json) => Ok(of_type("application/json", json.into_bytes())),
        None => Err(ApiError::not_found(
            "There is no such file in the firmware repository's metadata.",
        )),
    }
}

/// `/firmware/tuf/targets/HARDWARE/NAME/VERSION`: an image that the repository lists, to who has a job that
/// installs it.
fn target(
    rooms: &Rooms,
    device: Device,
    hardware: &str,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (name, version) = device.may_fetch(rooms, &wanted)?;
    let listed = rooms.ota.listed(&format!("{hardware}/{name}/{version}"))?;
    let (file, firmware) = rooms.ota.open_image(&name, &version)?;
    if firmware.sha256 != listed {
        return Err(ApiError::not_found(format!(
            "The image of {name} {version} that is listed is not the one this server has."
        )));
    }
    device.send(rooms, file, firmware.image(), headers)
}

fn of_type(media: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
