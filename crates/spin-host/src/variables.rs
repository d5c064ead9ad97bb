//! `spin:variables`: what the manifest gives the component.

use wasmtime::Result;
use wasmtime::component::Accessor;

use crate::bindings::spin::variables::variables::{Error, Host, HostWithStore};
use crate::guest::{Guest, Spin};

impl Host for Guest {}

impl<T: Send + 'static> HostWithStore<T> for Spin {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> Result<Result<String, Error>> {
        accessor.with(|mut access| {
            let value = access.get().given.variables.get(&name).cloned();
            Ok(value.ok_or(Error::Undefined(name)))
        })
    }
}
