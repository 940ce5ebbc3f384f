//! What one provider message costs to read.

fn main() {
    divan::main();
}
