#!/bin/bash
# Keeps running, on the head of a cluster, the MLflow server that all nodes write to, and
# optuna-dashboard for who comes by SSH.
#
#   head_services.sh start
#   head_services.sh stop
#
# ONESTEP_HOME is the folder that all nodes share. MLflow listens where MLFLOW_TRACKING_URI tells its
# clients, on that address of the head alone, and asks for MLFLOW_TRACKING_USERNAME and
# MLFLOW_TRACKING_PASSWORD, which they send; a new password holds after a stop. optuna-dashboard
# listens on the head's loopback alone. What runs already is left alone, and what ends is started
# again. Logs lie in $ONESTEP_HOME/services.
set -euo pipefail

# A lock in the account's home, which no clean-up of temporary files takes away, says whether NAME
# runs, and ends with it. In it is the group of its processes.
lock_of() { echo "$HOME/.onestep-$1.lock"; }

# keep NAME COMMAND...
keep() {
    local name=$1 lock
    lock=$(lock_of "$1")
    shift
    setsid --fork flock --nonblock --conflict-exit-code 0 "$lock" \
        bash -c 'echo $PPID >"$0"; while true; do "$@" || true; sleep 5; done' "$lock" "$@" \
        >>"$home/services/$name.log" 2>&1 </dev/null
}

# end NAME: with all of its processes, at once those that are slow to leave.
end() {
    local lock group
    lock=$(lock_of "$1")
    if [ ! -s "$lock" ] || flock --nonblock "$lock" true; then
        return
    fi
    group=$(cat "$lock")
    kill -- "-$group"
    timeout 20 bash -c 'while kill -0 -- "-$0" 2>/dev/null; do sleep 0.2; done' "$group" ||
        kill -KILL -- "-$group"
}

case ${1-} in
    start) ;;
    stop)
        end mlflow
        end optuna-dashboard
        exit
        ;;
    *)
        echo "head_services.sh takes start or stop, got '${1-}'" >&2
        exit 2
        ;;
esac

home=${ONESTEP_HOME:?the folder that all nodes share}
uri=${MLFLOW_TRACKING_URI:?http://ADDRESS:PORT, the address that of the head}
: "${MLFLOW_TRACKING_USERNAME:?whom MLflow lets in}" "${MLFLOW_TRACKING_PASSWORD:?the password}"
optuna_port=${OPTUNA_PORT:-8080}
place=${uri#http://}
mkdir -p "$home/services" "$home/artifacts"
export MLFLOW_AUTH_CONFIG_PATH=$home/services/mlflow_auth.ini
export MLFLOW_AUTH_ADMIN_PASSWORD=$MLFLOW_TRACKING_PASSWORD
MLFLOW_FLASK_SERVER_SECRET_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export MLFLOW_FLASK_SERVER_SECRET_KEY
users=$HOME/.onestep-mlflow-users.db
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
admin_username = $MLFLOW_TRACKING_USERNAME
database_uri = sqlite:///$users
default_permission = NO_PERMISSIONS
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
END

# The one user is made at each start, with the password of today.
keep mlflow bash -c 'rm -f "$1"; shift; exec "$@"' mlflow "$users" \
    mlflow server --app-name basic-auth --host "${place%:*}" --port "${place##*:}" --workers 1 \
    --backend-store-uri "sqlite:///$home/mlflow.db" --artifacts-destination "$home/artifacts" \
    --allowed-hosts "$place,localhost:${place##*:},127.0.0.1:${place##*:}"
# It cannot open a database that no sweep has made yet.
keep optuna-dashboard bash -c 'until [ -s "$1" ]; do sleep 5; done
    exec optuna-dashboard --host 127.0.0.1 --port "$2" "sqlite:///$1"' \
    optuna-dashboard "$home/optuna.db" "$optuna_port"
