from common.audit.verdict import (
    Finding as Finding,
    LedgerReport as LedgerReport,
    VerifyReport as VerifyReport,
)
from common.data.cleaning import CleaningReport as CleaningReport
from common.data.events import EventLog as EventLog
from common.errors import (
    BadInputError as BadInputError,
    BudgetExhaustedError as BudgetExhaustedError,
    ConfigError as ConfigError,
    FedcartError as FedcartError,
    MechanismError as MechanismError,
    PolicyRefusedError as PolicyRefusedError,
    RefusedError as RefusedError,
    RollbackError as RollbackError,
    RoundAbortedError as RoundAbortedError,
    VerificationError as VerificationError,
    WorkFailedError as WorkFailedError,
)
from common.extensions import register_encoder as register_encoder, register_head as register_head
from common.model.encoders import on_rows as on_rows
from common.privacy.accountant import epsilon_of as epsilon_of
from common.privacy.calibration import calibrate_noise as calibrate_noise
from common.privacy.mechanism import PrivacyEvent as PrivacyEvent
from common.run import (
    RunConfig as RunConfig,
    RunPlan as RunPlan,
)
from common.run.facts import RunFacts as RunFacts, SiteFacts as SiteFacts
from common.run.observer import Observer as Observer
from common.run.records import (
    RoundRecord as RoundRecord,
    SiteRound as SiteRound,
    Summary as Summary,
)
from fedcart.comparison import Comparison as Comparison, compare as compare
from fedcart.events import load_events as load_events, register_dataset as register_dataset
from fedcart.model import (
    BehaviourModel as BehaviourModel,
    SalesForecaster as SalesForecaster,
    open_model as open_model,
)
from fedcart.picture import Picture as Picture
from fedcart.run import Run as Run, Sweep as Sweep, open_run as open_run
from fedcart.settings import build_config as build_config, load_config as load_config
from fedcart.simulation import resume as resume, simulate as simulate
from fedcart.strategies import register_strategy as register_strategy
from fedcart.verification import verify as verify, verify_path as verify_path
from server.state import ServerState as ServerState
from simulations.jobs import scenario_names as scenario_names

__version__: str
__all__: list[str]

def __dir__() -> list[str]: ...
