"""Reading deposits and withdrawals: they are looked at alike."""

from service.domain.operations import Operation, OperationType
from service.errors import NotFound
from service.repositories import records as record_repository
from service.repositories.records import RecordFilter as RecordFilter  # noqa: PLC0414 controllers name it, and may not reach below


async def get_operation(operation_type: OperationType, operation_id: str, user_id: str) -> Operation:
    """Raises NotFound where there is none or it is somebody else's."""
    operation = await record_repository.find_owned(operation_id, Operation, user_id)
    if operation is None or operation.type is not operation_type:
        raise NotFound(f"There is no {operation_type} {operation_id}")
    return operation


async def list_operations(
    operation_type: OperationType, user_id: str, wanted: RecordFilter, *, before_id: str | None, limit: int
) -> list[Operation]:
    """Lists a user's operations, newest first."""
    prefix = record_repository.OPERATION_PREFIXES[operation_type]
    return await record_repository.find_of_user(prefix, Operation, user_id, wanted, before_id=before_id, limit=limit)
