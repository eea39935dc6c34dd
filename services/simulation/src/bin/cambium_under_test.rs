//! `cambium` with failpoints, for tests that kill it.

fn main() -> std::process::ExitCode {
    cambium_server::main()
}
