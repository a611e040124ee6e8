import "@xyflow/react/dist/style.css";
import "./style.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import type { RunRecord } from "./model/types";
import { App } from "./pages/App";
import { Exported } from "./pages/Exported";
import { applyStoredTheme } from "./parts/Theme";

applyStoredTheme();
const data = document.getElementById("orchestra-run");
const root = document.getElementById("root");
if (root)
  createRoot(root).render(<StrictMode>{data?.textContent ? <Exported record={JSON.parse(data.textContent) as RunRecord} /> : <App />}</StrictMode>);
