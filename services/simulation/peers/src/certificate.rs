//! A certificate for a peer on this machine, and who signed it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;

/// Where they are, all PEM.
pub(crate) struct Certificate {
    /// Who signed.
    pub ca_file: PathBuf,
    /// The peer's key.
    pub key: String,
    /// Its certificate, for 127.0.0.1.
    pub own: String,
}

/// Makes them, in this folder.
pub(crate) fn certify(folder: &Path) -> Certificate {
    let path = |name: &str| folder.join(name);
    let openssl = |arguments: &[&str], files: &[(&str, &str)]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]).args(arguments);
        for (flag, name) in files {
            command.arg(flag).arg(path(name));
        }
        run(command);
    };
    openssl(&["-subj", "/CN=cambium tests"], &[("-keyout", "ca.key"), ("-out", "ca.pem")]);
    openssl(
        &[
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ],
        &[("-CA", "ca.pem"), ("-CAkey", "ca.key"), ("-keyout", "own.key"), ("-out", "own.pem")],
    );
    let read = |name: &str| fs::read_to_string(path(name)).expect("openssl has written it");
    Certificate { ca_file: path("ca.pem"), key: read("own.key"), own: read("own.pem") }
}
