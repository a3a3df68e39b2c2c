"""RSEs: who may call what."""

from __future__ import annotations

from support.routes.callers import AGENT, KNOWN, ROOT, Routes

ROUTES: Routes = {
    ("GET", "/rses"): (KNOWN, "/rses", None),
    ("GET", "/rses/{rse}"): (KNOWN, "/rses/MINE", None),
    ("POST", "/rses/{rse}"): (ROOT, "/rses/NEW", {}),
    ("PUT", "/rses/{rse}"): (ROOT, "/rses/MINE", {"availability_delete": False}),
    ("DELETE", "/rses/{rse}"): (ROOT, "/rses/NEW", None),
    ("GET", "/rses/{rse}/attr"): (KNOWN, "/rses/MINE/attr", None),
    ("POST", "/rses/{rse}/attr/{key}"): (ROOT, "/rses/MINE/attr/k", {"value": "v"}),
    ("DELETE", "/rses/{rse}/attr/{key}"): (ROOT, "/rses/MINE/attr/k", None),
    ("GET", "/rses/{rse}/protocols"): (KNOWN, "/rses/MINE/protocols", None),
    ("POST", "/rses/{rse}/protocols/{scheme}"): (
        ROOT,
        "/rses/MINE/protocols/davs",
        {"hostname": "x.example.org", "prefix": "/p"},
    ),
    ("GET", "/rses/{rse}/protocols/{scheme}"): (KNOWN, "/rses/MINE/protocols/file", None),
    ("PUT", "/rses/{rse}/protocols/{scheme}"): (ROOT, "/rses/MINE/protocols/file", {"prefix": "/tmp/mine"}),
    ("PUT", "/rses/{rse}/protocols/{scheme}/{hostname}"): (ROOT, "/rses/MINE/protocols/file/h", {}),
    ("PUT", "/rses/{rse}/protocols/{scheme}/{hostname}/{port}"): (ROOT, "/rses/MINE/protocols/file/h/1", {}),
    ("DELETE", "/rses/{rse}/protocols/{scheme}"): (ROOT, "/rses/MINE/protocols/davs", None),
    ("DELETE", "/rses/{rse}/protocols/{scheme}/{hostname}"): (ROOT, "/rses/MINE/protocols/davs/h", None),
    ("DELETE", "/rses/{rse}/protocols/{scheme}/{hostname}/{port}"): (
        ROOT,
        "/rses/MINE/protocols/davs/h/1",
        None,
    ),
    ("GET", "/rses/{source}/distances/{destination}"): (KNOWN, "/rses/MINE/distances/YOURS", None),
    ("POST", "/rses/{source}/distances/{destination}"): (ROOT, "/rses/MINE/distances/YOURS", {"distance": 1}),
    ("PUT", "/rses/{source}/distances/{destination}"): (ROOT, "/rses/MINE/distances/YOURS", {"distance": 2}),
    ("DELETE", "/rses/{source}/distances/{destination}"): (ROOT, "/rses/MINE/distances/YOURS", None),
    ("GET", "/rses/{rse}/usage"): (KNOWN, "/rses/MINE/usage", None),
    ("GET", "/rses/{rse}/usage/history"): (KNOWN, "/rses/MINE/usage/history", None),
    ("PUT", "/rses/{rse}/usage"): (AGENT, "/rses/MINE/usage", {"source": "storage", "used": 1, "free": 1}),
    ("GET", "/rses/{rse}/removable"): (KNOWN, "/rses/MINE/removable", None),
    ("GET", "/rses/{rse}/limits"): (KNOWN, "/rses/MINE/limits", None),
    ("PUT", "/rses/{rse}/limits"): (ROOT, "/rses/MINE/limits", {"name": "MinFreeSpace", "value": 1}),
    ("DELETE", "/rses/{rse}/limits"): (ROOT, "/rses/MINE/limits", {"name": "MinFreeSpace"}),
    ("GET", "/rses/{rse}/lfns2pfns"): (
        KNOWN,
        "/rses/MINE/lfns2pfns?lfn=hers:f&operation=read",
        None,
    ),
    ("GET", "/rses/{rse}/qos_policy"): (KNOWN, "/rses/MINE/qos_policy", None),
    ("POST", "/rses/{rse}/qos_policy/{policy}"): (ROOT, "/rses/MINE/qos_policy/GOLD", None),
    ("DELETE", "/rses/{rse}/qos_policy/{policy}"): (ROOT, "/rses/MINE/qos_policy/GOLD", None),
    ("GET", "/export"): (KNOWN, "/export", None),
    ("POST", "/import"): (ROOT, "/import", {"rses": {"MINE": {}}}),
    ("GET", "/config"): (KNOWN, "/config", None),
    ("GET", "/config/{section}"): (KNOWN, "/config/limits", None),
    ("GET", "/config/{section}/{option}"): (KNOWN, "/config/limits/max_bulk_items", None),
}
