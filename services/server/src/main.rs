//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    cambium_server::main()
}
