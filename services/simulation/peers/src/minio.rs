//! MinIO: an S3 server.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::certificate::certify;
use crate::{Process, binary, free_address};

/// A server with one bucket and one key of a key service. Its data stay as long as this value does.
#[derive(Debug)]
pub struct Minio {
    /// The server.
    pub server: Process,
    endpoint: String,
    ca_file: Option<PathBuf>,
    /// Dropped last.
    _folder: TempDir,
}

impl Minio {
    /// Its one bucket.
    pub const BUCKET: &str = "cambium";
    /// Who may do everything.
    pub const ACCESS_KEY_ID: &str = "for-tests";
    /// And its key.
    pub const SECRET_ACCESS_KEY: &str = "for tests only";
    /// The key service's one key.
    pub const KMS_KEY_ID: &str = "cambium-key";

    /// A server without TLS, running; none where peers are skipped.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        Self::build(false)
    }

    /// One that speaks TLS only.
    ///
    /// # Panics
    /// When it does not start.
    pub fn secured() -> Option<Self> {
        Self::build(true)
    }

    /// Where it answers.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Who signed its certificate (PEM), if it has one.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file.clone()
    }

    fn build(with_tls: bool) -> Option<Self> {
        let binary = binary("minio", "minio")?;
        let folder = TempDir::new().expect("a temporary folder");
        let (address, data, certificates) =
            (free_address(), folder.path().join("data"), folder.path().join("certificates"));
        fs::create_dir_all(data.join(Self::BUCKET)).expect("a folder can be made");
        fs::create_dir(&certificates).expect("a folder can be made");
        let ca_file = with_tls.then(|| {
            let certificate = certify(folder.path());
            fs::write(certificates.join("public.crt"), certificate.own).expect("a file can be written");
            fs::write(certificates.join("private.key"), certificate.key).expect("a file can be written");
            certificate.ca_file
        });
        let endpoint = format!("{}://{address}", if with_tls { "https" } else { "http" });
        let mut server = Process::new("minio", folder.path(), "API: ", move || {
            let mut command = Command::new(&binary);
            command.args(["server", "--address", &address, "--certs-dir"]).arg(&certificates).arg(&data);
            command
                .env("MINIO_ROOT_USER", Self::ACCESS_KEY_ID)
                .env("MINIO_ROOT_PASSWORD", Self::SECRET_ACCESS_KEY);
            // 32 bytes, as base64 has them.
            command.env("MINIO_KMS_SECRET_KEY", format!("{}:{}=", Self::KMS_KEY_ID, "A".repeat(43)));
            command.env("MINIO_UPDATE", "off").env("MINIO_BROWSER", "off");
            command
        });
        server.start();
        Some(Self { server, endpoint, ca_file, _folder: folder })
    }
}
