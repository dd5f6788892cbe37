/** cornerstone3D, started once: one rendering engine and one group of mouse tools for all viewports of the page. */
import { Enums, init as initCore, metaData, RenderingEngine, type Types } from "@cornerstonejs/core";
import { init as initLoader } from "@cornerstonejs/dicom-image-loader";
import { utilities as metadata } from "@cornerstonejs/metadata";
import {
  addTool,
  Enums as ToolEnums,
  init as initTools,
  PanTool,
  StackScrollTool,
  ToolGroupManager,
  WindowLevelTool,
  ZoomTool,
} from "@cornerstonejs/tools";
import { takeImage } from "../api/early";

export type LeftTool = "window" | "pan" | "zoom";

const ENGINE = "wetread";
const GROUP = "wetread";
const { MouseBindings, KeyboardBindings } = ToolEnums;
const NAMES: Record<LeftTool, string> = {
  window: WindowLevelTool.toolName,
  pan: PanTool.toolName,
  zoom: ZoomTool.toolName,
};

let engine: RenderingEngine | null = null;

function started(): RenderingEngine {
  if (engine !== null) return engine;
  initCore({ rendering: { webGlContextCount: 2 }, debug: {} });
  // Each decoder is 200 kB of script to begin with; on two cores a second one only delays the first image.
  initLoader({ maxWebWorkers: Math.min(2, Math.max(1, (navigator.hardwareConcurrency || 2) - 1)) });
  initTools();
  for (const tool of [WindowLevelTool, PanTool, ZoomTool, StackScrollTool]) addTool(tool);
  const group = ToolGroupManager.createToolGroup(GROUP);
  for (const name of [...Object.values(NAMES), StackScrollTool.toolName]) group?.addTool(name);
  engine = new RenderingEngine(ENGINE);
  setLeftTool("window");
  return engine;
}

/** What the left button does; the middle one pans, the right one and Ctrl with the wheel zoom, the wheel scrolls. */
export function setLeftTool(tool: LeftTool): void {
  const group = ToolGroupManager.getToolGroup(GROUP);
  if (!group) return;
  const primary = { mouseButton: MouseBindings.Primary };
  const own = {
    window: [],
    pan: [{ mouseButton: MouseBindings.Auxiliary }],
    zoom: [
      { mouseButton: MouseBindings.Secondary },
      { mouseButton: MouseBindings.Wheel, modifierKey: KeyboardBindings.Ctrl },
    ],
  };
  for (const one of Object.keys(NAMES) as LeftTool[]) {
    group.setToolDisabled(NAMES[one]);
    const bindings = [...own[one], ...(one === tool ? [primary] : [])];
    if (bindings.length > 0) group.setToolActive(NAMES[one], { bindings });
  }
  group.setToolActive(StackScrollTool.toolName, { bindings: [{ mouseButton: MouseBindings.Wheel }] });
}

export function openViewport(id: string, element: HTMLDivElement): Types.IStackViewport {
  const running = started();
  running.enableElement({
    viewportId: id,
    type: Enums.ViewportType.STACK,
    element,
    defaultOptions: { background: [0, 0, 0] },
  });
  ToolGroupManager.getToolGroup(GROUP)?.addViewport(id, ENGINE);
  return running.getViewport(id) as Types.IStackViewport;
}

export function closeViewport(id: string): void {
  ToolGroupManager.getToolGroup(GROUP)?.removeViewports(ENGINE, id);
  engine?.disableElement(id);
}

/** Fit to new sizes: an image that was shown whole stays whole, one that was zoomed keeps its zoom. */
export function resizeAll(): void {
  if (engine === null) return;
  const whole = engine.getViewports().filter((one) => {
    const [x, y] = one.getPan();
    return Math.abs(one.getZoom() - 1) < 0.01 && Math.hypot(x, y) < 1;
  });
  engine.resize(true, true);
  for (const one of whole) {
    one.resetCamera({ resetPan: true, resetZoom: true });
    one.render();
  }
}

/** Start all that needs no image: workers, canvases, tools. */
export function warmUp(): void {
  started();
}

export const imageIdOf = (address: string): string => `wadouri:${location.origin}${address}`;

/** Hand the loader an image whose bytes are on their way already; it fetches any other by itself. */
export async function takeEarly(address: string): Promise<void> {
  const coming = takeImage(address);
  if (coming === undefined) return;
  try {
    await metadata.addDicomPart10Instance(imageIdOf(address), await coming);
  } catch {
    // asked for again by the loader, whose error is shown
  }
}

/** The header of an image that is loaded, by the standard's keywords; empty where there is none. */
export function headerOf(imageId: string): Record<string, unknown> {
  return (metaData.get("naturalized", imageId) as Record<string, unknown> | undefined) ?? {};
}
