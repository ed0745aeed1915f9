# Sourced: `tool NAME VERSION [OPTIONS]` has cargo's NAME of that very VERSION in PATH, installing it
# under target/tools where it is not there. They are run once in a while: without optimisation they
# build in a third of the time. What compresses is worth a little.

tools=$PWD/target/tools
PATH=$tools/bin:$PATH

tool() {
    local name=$1 version=$2
    shift 2
    if [ -e "$tools/$name-$version" ]; then
        return
    fi
    CARGO_TARGET_DIR=$tools/build CARGO_PROFILE_DEV_DEBUG=0 RUSTFLAGS='' CARGO_PROFILE_DEV_OPT_LEVEL=${OPTIMISE:-0} CFLAGS=-O2 \
        cargo install --quiet --locked --debug --force --root "$tools" "$@" "$name@$version"
    touch "$tools/$name-$version"
}
