//! The interfaces of `wit/` as Rust.

#![allow(missing_docs, reason = "generated; `wit/` says what each is")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "host:spin/imports",
    imports: {
        "spin:sqlite/sqlite.[static]connection.open": async | trappable,
        "spin:sqlite/sqlite.[method]connection.execute": async | trappable,
        default: trappable,
    },
    with: {
        "spin:key-value/key-value.store": crate::key_value::Store,
        "spin:sqlite/sqlite.connection": crate::sqlite::Database,
    },
});
