import re
from tests.nodes.test_registration import all_inputs, schemas
def test_a(schemas):
    for name, schema in schemas.items():
        for n, i in all_inputs(schema):
            if i.get_io_type() in ("INT","FLOAT") and not re.search(r"typical|released model", i.tooltip):
                print("VIOL", name, n, "|", i.tooltip)
